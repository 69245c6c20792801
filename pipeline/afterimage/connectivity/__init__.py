"""How regions, sensors or neurons move together: static, dynamic, states, graphs."""
