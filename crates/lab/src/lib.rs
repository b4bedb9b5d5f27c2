//! Network namespaces and the link emulator in real time: real kernels, real TCP, one machine.
