//go:build !linux

package main

import "syscall"

// tied gives a program no tie to its wrapper: only Linux has one.
func tied() *syscall.SysProcAttr { return nil }
