"""Methods of training: Meta Pseudo Labels, its reduced form, and what they are compared with.

A method is a value: what it starts from, one pure step, and the networks that it trains. The words teacher, student,
pseudo label and exam get their meaning here. Inside: Meta Pseudo Labels, Reduced Meta Pseudo Labels,
supervised learning, UDA, pseudo labels, finetuning, and the rules for the scale of the feedback.

Floor 4: imports `nn`, `optim`, `data`, `evaluation` and what is below them, but no estimator: that is an argument.
Training and everything above may import it.
"""
