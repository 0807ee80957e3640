//go:build !linux

package postgres

import (
	"context"
	"syscall"
)

// control does nothing where the kernel has no TCP_USER_TIMEOUT; keep-alives remain.
func control(context.Context, string, string, syscall.RawConn) error { return nil }
