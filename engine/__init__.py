"""The one training loop and all that a run needs: networks, loaders, checkpoints, folder, stopping, devices, flags."""
