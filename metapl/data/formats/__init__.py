"""Files as tensors: images, arrays, tables, shards, and the pickles of CIFAR, all of them read within bounds."""
