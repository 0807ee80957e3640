package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/server/internal/registry"
	"telford.dev/telford/server/internal/store"
	"telford.dev/telford/server/internal/tx"
)

// roleVariable turns this test binary into the program that a role names, so that it
// can be killed, traced and limited. Its other parameters come by the environment too.
const (
	roleVariable    = "TELFORD_STORE_TEST_ROLE"
	dataVariable    = "TELFORD_STORE_TEST_DATA"
	urlVariable     = "TELFORD_STORE_TEST_URL"
	writersVariable = "TELFORD_STORE_TEST_WRITERS"
	eachVariable    = "TELFORD_STORE_TEST_EACH" // writes of one writer; 0: for ever
)

// command is this binary in a role, behind the words of prefix (a tracer).
func command(t *testing.T, role string, prefix []string, env ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := append(append([]string{}, prefix...), self)
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Env = append(append(os.Environ(), roleVariable+"="+role), env...)
	cmd.Stderr = os.Stderr
	return cmd
}

// child is main in a role.
func child(role string) int {
	// The limit on file sizes must be an error, not the end of the process.
	signal.Ignore(syscall.SIGXFSZ)
	var err error
	switch role {
	case "write":
		err = childWrites()
	case "limit":
		err = childHitsLimit()
	case "keyed":
		err = childCalls()
	default:
		err = fmt.Errorf("no role %q", role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, role+":", err)
		return 1
	}
	return 0
}

// say writes one line with one system call.
func say(format string, args ...any) {
	if _, err := fmt.Fprintf(os.Stdout, format+"\n", args...); err != nil {
		os.Exit(3) // nobody listens any more
	}
}

// childWrites registers instances from several writers at once. It says "commit" for
// each on the goroutine that has made it durable, before any of the batch is answered,
// then "ack" when it is answered. Its clock jumps an hour forward and back as it goes.
func childWrites() error {
	writers, _ := strconv.Atoi(os.Getenv(writersVariable))
	each, _ := strconv.Atoi(os.Getenv(eachVariable))
	now := clock.NewManual(time.Now())
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	s, err := store.Open(ctx, store.Config{URL: os.Getenv(urlVariable), Data: os.Getenv(dataVariable), Clock: now})
	if err != nil {
		return err
	}
	say("open")
	var all sync.WaitGroup
	errs := make(chan error, writers)
	for w := range writers {
		all.Go(func() {
			for i := 0; each == 0 || i < each; i++ {
				jump := []time.Duration{time.Hour, -2 * time.Hour, time.Hour, time.Millisecond}[i%4]
				now.Set(now.Now().Add(jump))
				id := fmt.Sprintf("in_%d_%d_%d", os.Getpid(), w, i)
				at := now.Now().Truncate(time.Microsecond)
				err := s.Write(ctx, func(t tx.Tx) error {
					t.AfterCommit(func() { say("commit %s", id) })
					return errors.Join(
						s.PutInstance(t, &registry.Row{Namespace: "default", ID: id, Declaration: []byte(id), Registered: at, Updated: at}),
						s.PutMeta(t, id, []byte(id)),
					)
				})
				switch {
				case err == nil:
					say("ack %s %d", id, at.UnixMicro())
				case errors.Is(err, tx.ErrOutcomeUnknown):
					say("unknown %s", id)
				case errors.Is(err, tx.ErrUnavailable):
					say("refused %s", id)
				default:
					errs <- fmt.Errorf("%s: %w", id, err)
					return
				}
			}
		})
	}
	all.Wait()
	close(errs)
	return errors.Join(<-errs, s.Close())
}

// childHitsLimit writes until a limit on file sizes stops it, then goes on without.
func childHitsLimit() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	s, err := store.Open(ctx, store.Config{Data: os.Getenv(dataVariable)})
	if err != nil {
		return err
	}
	put := func(i int) error {
		return s.Write(ctx, func(t tx.Tx) error { return s.PutMeta(t, fmt.Sprint(i), make([]byte, 20_000)) })
	}
	check := func(n int) error {
		return s.Read(ctx, func(t tx.Tx) error {
			for i := range n {
				if _, err := s.Meta(t, fmt.Sprint(i)); err != nil {
					return fmt.Errorf("acknowledged, and lost: %w", err)
				}
			}
			return nil
		})
	}
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		return err
	}
	small := old
	small.Cur = 300_000
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &small); err != nil {
		return err
	}
	// The first refusals make room by emptying the log. In the end the database itself
	// is full and stays so, and reading goes on.
	acked, refused := 0, 0
	for acked < 1000 && refused < 5 {
		err := put(acked)
		switch {
		case err == nil:
			acked, refused = acked+1, 0
		case errors.Is(err, tx.ErrFull):
			refused++
		default:
			return fmt.Errorf("after %d writes: want %q, got %w", acked, tx.ErrFull.Error(), err)
		}
	}
	if refused == 0 {
		return fmt.Errorf("%d writes of 20 kB fit into %d bytes", acked, small.Cur)
	}
	if err := check(acked); err != nil {
		return err
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		return err
	}
	for range 100 {
		if err := put(acked); err != nil {
			return fmt.Errorf("with space again: %w", err)
		}
		acked++
	}
	say("acked %d", acked)
	return errors.Join(check(acked), s.Close())
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
