"""What is learnt: a room per task, with its axes, columns, models, data sets, training and judgement."""
