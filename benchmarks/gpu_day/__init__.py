"""What is to be known of a GPU that is lent for ten minutes: is it right, how fast, and numbers at the paper's length.

`gpu_day.sh` runs it all; it needs torch, torchvision, numpy, scipy and Pillow and nothing else (docs/speed.md).
"""
