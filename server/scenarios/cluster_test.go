package scenarios

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"telford.dev/telford"
)

// cluster is a runtime with the services around it.
type cluster struct {
	t       *testing.T
	data    string
	args    []string
	grpc    string // the address, the same over restarts
	http    string
	runtime *process

	mu       sync.Mutex
	keys     map[string]string
	journals []string
}

// newCluster starts a runtime with further arguments of serve.
func newCluster(t *testing.T, args ...string) *cluster {
	t.Helper()
	c := &cluster{t: t, data: t.TempDir(), args: args, grpc: freeAddr(t), http: freeAddr(t), keys: make(map[string]string)}
	c.serve()
	return c
}

// freeAddr is an address that nobody listens on.
func freeAddr(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer ln.Close()
	return ln.Addr().String()
}

func portOf(t testing.TB, addr string) int {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", addr)
	must(t, err)
	return a.Port
}

// serve starts the runtime, for the first time or again.
func (c *cluster) serve() {
	c.t.Helper()
	args := append([]string{"serve", "--data", c.data, "--grpc", c.grpc, "--http", c.http, "--http-plain", "--ipc", "off", "--bus", "off"}, c.args...)
	c.runtime = start(c.t, "telford serve", exec.Command(program, args...))
	if !strings.HasPrefix(c.runtime.ready, "ready grpc=") {
		c.t.Fatalf("telford serve says %q", c.runtime.ready)
	}
}

// cli runs a command of the program and returns what it prints.
func (c *cluster) cli(args ...string) string {
	c.t.Helper()
	out, err := c.try(args...)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

func (c *cluster) try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, append(args, "--data", c.data)...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("telford %s: %w: %s", strings.Join(args, " "), err, errOut.String())
	}
	return strings.TrimSpace(out.String()), nil
}

// key is a service key, the same one each time.
func (c *cluster) key(service string) string {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.keys[service] == "" {
		c.keys[service] = c.cli("keys", "create", "--service", service)
	}
	return c.keys[service]
}

// worker starts an instance of the service "work".
func (c *cluster) worker(change func(*workerSpec)) *worker {
	c.t.Helper()
	c.mu.Lock()
	journal := filepath.Join(c.data, fmt.Sprintf("journal.%d", len(c.journals)))
	c.journals = append(c.journals, journal)
	c.mu.Unlock()
	spec := workerSpec{Service: "work", Server: c.grpc, Key: c.key("work"), Journal: journal}
	if change != nil {
		change(&spec)
	}
	text, err := json.Marshal(spec)
	must(c.t, err)
	exe, err := os.Executable()
	must(c.t, err)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), workerEnv+"="+string(text))
	w := &worker{process: start(c.t, "worker", cmd)}
	id, ok := strings.CutPrefix(w.ready, "ready ")
	if !ok {
		c.t.Fatalf("the worker says %q", w.ready)
	}
	w.id = id
	w.name = "worker " + id
	return w
}

// worker is a process that is an instance of the service "work".
type worker struct {
	*process
	id string
}

// workers starts n of them.
func (c *cluster) workers(n int) []*worker {
	c.t.Helper()
	list := make([]*worker, n)
	for i := range list {
		list[i] = c.worker(nil)
	}
	return list
}

// caller starts a service in this process that only calls, and waits until it knows n
// instances of the workers.
func (c *cluster) caller(n int, opts ...telford.Option) *telford.Service {
	c.t.Helper()
	s := c.started("caller", append([]telford.Option{telford.CallerOnly(), telford.Uses("work")}, opts...)...)
	within(c.t, patience, "the caller knows the workers", func() bool { return len(s.ServiceMap()["work"].Instances) == n })
	return s
}

// started starts a service in this process.
func (c *cluster) started(name string, opts ...telford.Option) *telford.Service {
	c.t.Helper()
	log := &buffer{}
	s, err := telford.New(name, append([]telford.Option{
		telford.WithServer(c.grpc), telford.WithKey(c.key(name)), telford.Logger(slog.New(slog.NewTextHandler(log, nil))),
	}, opts...)...)
	must(c.t, err)
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	if err := s.Start(ctx); err != nil {
		c.t.Fatalf("start %s: %v", name, err)
	}
	c.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = s.Stop(ctx) // a test may have cut it off
		if c.t.Failed() {
			c.t.Logf("%s:\n%s", name, log.tail())
		}
	})
	return s
}

// executed counts how often each call was begun, over all workers.
func (c *cluster) executed() map[string]int {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	count := make(map[string]int)
	for _, j := range c.journals {
		b, err := os.ReadFile(j)
		must(c.t, err)
		for id := range strings.FieldsSeq(string(b)) {
			count[id]++
		}
	}
	return count
}

// tombstones are the instances of the workers that the runtime has reported gone.
func (c *cluster) tombstones() []string {
	c.t.Helper()
	var service struct {
		Tombstones []struct{ ID, Reason string } `json:"tombstones"`
	}
	must(c.t, json.Unmarshal([]byte(c.cli("services", "get", "work", "--json")), &service))
	var gone []string
	for _, s := range service.Tombstones {
		gone = append(gone, s.ID+" "+s.Reason)
	}
	return gone
}
