"""One driver for each compiler family: argv → Plan or Reason."""
