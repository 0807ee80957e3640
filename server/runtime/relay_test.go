package runtime_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

// relay stands between a runtime and its PostgreSQL, and can swallow the answer to a
// COMMIT.
type relay struct {
	net.Listener
	target string
	armed  atomic.Bool
	open   sync.WaitGroup
}

const socketName = ".s.PGSQL.5432"

// relayed returns the URL of a database by way of a relay.
func relayed(t *testing.T, database string) (string, *relay) {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "relay") //nolint:usetesting // the name of a socket must be short, and t.TempDir is long
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, socketName))
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	r := &relay{Listener: l, target: filepath.Join(q.Get("host"), socketName)}
	q.Set("host", dir)
	u.RawQuery = q.Encode()
	r.open.Go(r.accept)
	t.Cleanup(func() {
		_ = l.Close()
		r.open.Wait()
		_ = os.RemoveAll(dir)
	})
	return u.String(), r
}

func (r *relay) accept() {
	for {
		client, err := r.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("unix", r.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		r.open.Go(func() { r.carry(client, server) })
	}
}

// carry moves bytes both ways until one end is closed. The answer to a COMMIT of a
// relay that is armed is the end.
func (r *relay) carry(client, server net.Conn) {
	var swallow atomic.Bool
	var up sync.WaitGroup
	up.Go(func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := client.Read(buf)
			if bytes.Contains(buf[:n], []byte("commit\x00")) && r.armed.CompareAndSwap(true, false) {
				swallow.Store(true)
			}
			if _, e := server.Write(buf[:n]); errors.Join(err, e) != nil {
				_ = server.Close()
				return
			}
		}
	})
	buf := make([]byte, 64<<10)
	for {
		n, err := server.Read(buf)
		if swallow.Load() || err != nil {
			break
		}
		if _, err := io.Copy(client, bytes.NewReader(buf[:n])); err != nil {
			break
		}
	}
	_ = client.Close()
	_ = server.Close()
	up.Wait()
}
