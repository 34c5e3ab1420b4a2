"""What a grounding network is measured by: instance segmentation and referral in 3D. Knows no training."""
