"""From brain responses to stimulus features."""
