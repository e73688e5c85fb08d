"""The loop: config, snapshot, train, evaluate, promote. Each DVC stage calls one step, a backtest
calls all of them."""
