package store_test

import (
	"os"
	"runtime"
	"syscall"
	"testing"
)

// roleVariable turns this test binary into the program that a role names, so that it
// can be killed, traced and limited.
const roleVariable = "TELFORD_STORE_TEST_ROLE"

// child is main in a role. Parameters come by the environment.
func child(role string) int {
	println("no role", role)
	return 2
}

// withoutRoot runs f on a thread whose file accesses are those of an ordinary user.
func withoutRoot(t *testing.T, f func()) {
	t.Helper()
	if os.Getuid() != 0 {
		f()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := syscall.Setfsuid(65534); err != nil {
			t.Error(err)
			return
		}
		f()
	}()
	<-done
}
