"""How lists are measured: metrics, figures beyond accuracy, the protocol, and what chance could have done."""
