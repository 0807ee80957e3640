package main

import "syscall"

// tied has the kernel kill a program when its wrapper has gone, however that ended.
func tied() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
