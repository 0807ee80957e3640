package store_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"telford.dev/telford/server/internal/registry"
	"telford.dev/telford/server/internal/store"
	"telford.dev/telford/server/internal/store/storetest"
	"telford.dev/telford/server/internal/tx"
)

// heavy is n when everything is to be run, else a hundredth, but at least small.
func heavy(n, small int) int {
	if os.Getenv("TELFORD_SOAK") == "1" {
		return n
	}
	return max(n/100, small)
}

// acks reads what a child says, until its end or n acknowledgements. It returns the
// times that were acknowledged by id.
func acks(t *testing.T, r io.Reader, n int) map[string]int64 {
	t.Helper()
	acked := map[string]int64{}
	lines := bufio.NewReader(r)
	for n == 0 || len(acked) < n {
		line, err := lines.ReadString('\n')
		if err != nil {
			return acked // a line without its end was not said
		}
		if f := strings.Fields(line); f[0] == "ack" {
			at, err := strconv.ParseInt(f[2], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			acked[f[1]] = at
		}
	}
	return acked
}

// holds fails unless everything that was acknowledged is there, as it was written.
func holds(t *testing.T, s *store.Store, acked map[string]int64) {
	t.Helper()
	if err := s.Read(t.Context(), func(t2 tx.Tx) error {
		rows, err := s.Instances(t2)
		if err != nil {
			return err
		}
		found := map[string]*registry.Row{}
		for _, r := range rows {
			found[r.ID] = r
		}
		for id, at := range acked {
			r := found[id]
			if r == nil {
				t.Errorf("%s was acknowledged and is lost", id)
				continue
			}
			if !r.Updated.Equal(time.UnixMicro(at)) || string(r.Declaration) != id {
				t.Errorf("%s came back as %v %q, want %v", id, r.Updated, r.Declaration, time.UnixMicro(at).UTC())
			}
			if _, err := s.Meta(t2, id); err != nil {
				t.Errorf("the other half of %s: %v", id, err)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func testKilledProcess(t *testing.T, cfg store.Config) {
	t.Parallel()
	acked := map[string]int64{}
	for range heavy(50, 3) {
		cmd := command(t, "write", nil, dataVariable+"="+cfg.Data, urlVariable+"="+cfg.URL, writersVariable+"=8")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := &strings.Builder{} // what it said before it died counts, too
		some := acks(t, io.TeeReader(out, lines), 100)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(lines, out)
		if err := cmd.Wait(); cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("the writer ended by itself: %v", err)
		}
		if len(some) < 100 {
			t.Fatalf("%d acknowledgements", len(some))
		}
		for id, at := range acks(t, strings.NewReader(lines.String()), 0) {
			acked[id] = at
		}
		s, err := store.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		holds(t, s, acked)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAKilledProcessKeepsWhatItAcknowledged(t *testing.T) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) { testKilledProcess(t, store.Config{Data: t.TempDir()}) })
	t.Run("postgres", func(t *testing.T) { testKilledProcess(t, store.Config{URL: storetest.Postgres(t)}) })
}

func TestPostgresKilledKeepsWhatItAcknowledged(t *testing.T) {
	t.Parallel()
	server := storetest.NewServer(t)
	s := openConfig(t, store.Config{URL: server.Database(t)})
	var mu sync.Mutex
	acked := map[string]int64{}
	for round := range heavy(20, 2) {
		ctx, cancel := context.WithCancel(t.Context())
		var n atomic.Int64
		enough := make(chan struct{})
		var all sync.WaitGroup
		for w := range 8 {
			all.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					id := fmt.Sprintf("in_%d_%d_%d", round, w, i)
					at := time.Date(2026, 1, 1, 0, 0, i, 0, time.UTC)
					err := s.Write(ctx, func(t2 tx.Tx) error {
						return errors.Join(
							s.PutInstance(t2, &registry.Row{Namespace: "default", ID: id, Declaration: []byte(id), Updated: at}),
							s.PutMeta(t2, id, nil))
					})
					if err != nil {
						continue // the server is being killed
					}
					mu.Lock()
					acked[id] = at.UnixMicro()
					mu.Unlock()
					if n.Add(1) == 100 {
						close(enough)
					}
				}
			})
		}
		<-enough
		err := server.Kill()
		cancel()
		all.Wait()
		if err != nil {
			t.Fatal(err)
		}
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		holds(t, s, acked)
	}
}

func TestALimitOnFileSizes(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	out, err := command(t, "limit", nil, dataVariable+"="+data).Output()
	if err != nil {
		t.Fatal(err)
	}
	var acked int
	if _, err := fmt.Sscanf(string(out), "acked %d", &acked); err != nil || acked < 100 {
		t.Fatalf("%d writes acknowledged, %v", acked, err)
	}
	s := openConfig(t, store.Config{Data: data})
	if err := s.Read(t.Context(), func(t2 tx.Tx) error {
		for i := range acked {
			if _, err := s.Meta(t2, fmt.Sprint(i)); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}
