"""Where models stored by earlier versions look for their classes. See `retrain.renamed`."""
