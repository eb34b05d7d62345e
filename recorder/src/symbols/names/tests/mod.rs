mod demangle;
mod hostile;
mod short;
