"""The configuration: the stages' models put together, loaded, checked and explained."""
