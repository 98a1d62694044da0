"""How fast? The tutorial, this project, Keras and PyTorch on one network, side by side."""
