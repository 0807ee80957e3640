package scenarios

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"telford.dev/telford"
)

// Thousands of sessions are back within half a minute after a restart of the runtime,
// be it killed or stopped, and direct calls do not notice.
func TestHerdReturns(t *testing.T) {
	alone(t)
	c := newCluster(t)
	c.workers(2)
	caller := c.caller(2)
	n := size(50, 5000)
	var connected atomic.Int64
	key := c.key("herd")
	var wg sync.WaitGroup
	next := make(chan int)
	began := time.Now()
	for range 16 {
		wg.Go(func() {
			for i := range next {
				s, err := telford.New("herd", telford.WithServer(c.grpc), telford.WithKey(key), telford.CallerOnly(), telford.InstanceID(fmt.Sprintf("in_%d", i)))
				if err != nil {
					t.Error(err)
					continue
				}
				s.OnConnected(func(telford.Connected) { connected.Add(1) })
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				err = s.Start(ctx)
				cancel()
				if err != nil {
					t.Error(err)
				}
				t.Cleanup(func() {
					ctx, cancel := context.WithCancel(context.Background())
					cancel() // the cluster ends as well
					_ = s.Stop(ctx)
				})
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	if t.Failed() {
		return
	}
	t.Logf("%d sessions were opened within %v", n, time.Since(began).Round(time.Millisecond))
	direct := startLoad(t, caller, "direct", 100, time.Millisecond, telford.Transport(telford.Direct))
	window := size(time.Second, 10*time.Second)
	within(t, 30*time.Second, "all are connected", func() bool { return connected.Load() == int64(n) })
	steady := c.load(window)
	for _, kind := range []string{"killed", "stopped"} {
		connected.Store(0)
		before := processor()
		if kind == "killed" {
			c.runtime.kill(t)
		} else {
			c.runtime.stop(t)
		}
		c.serve()
		ready := time.Now()
		var half time.Duration
		within(t, 30*time.Second, fmt.Sprintf("all %d sessions are back", n), func() bool {
			have := connected.Load()
			if time.Since(ready) > 29*time.Second {
				t.Logf("%d are back after %v", have, time.Since(ready)) // which is about to fail
			}
			if half == 0 && have >= int64(n)/2 {
				half = time.Since(ready)
			}
			return have >= int64(n)
		})
		took := time.Since(ready)
		spent, own := c.cpu(), processor()-before
		if soak {
			during(10*time.Second-took, nil)
		}
		after := c.load(window)
		t.Logf("%s: half of them were back %v after the ready line, all after %v, for which the runtime spent %v of processor time and this process %v; then it takes %.0f%% of a processor, before %.0f%%",
			kind, half.Round(time.Millisecond), took.Round(time.Millisecond), spent.Round(time.Millisecond), own.Round(time.Millisecond), 100*after, 100*steady)
		t.Logf("%s: %s", kind, c.metric("telford_connections_refused_total"))
	}
	direct.noFailure(t)
}

// cpu is the processor time that the runtime has spent, in user and system mode.
func (c *cluster) cpu() time.Duration {
	c.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.runtime.cmd.Process.Pid))
	must(c.t, err)
	// The name of the program, in brackets, may hold anything.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		must(c.t, err)
		ticks += n
	}
	return time.Duration(ticks) * time.Second / 100 // USER_HZ
}

// load is the share of one processor that the runtime takes over a time.
func (c *cluster) load(over time.Duration) float64 {
	c.t.Helper()
	from, began := c.cpu(), time.Now()
	during(over, nil)
	return float64(c.cpu()-from) / float64(time.Since(began))
}

// metric is the line of a metric without labels.
func (c *cluster) metric(name string) string {
	c.t.Helper()
	token, err := os.ReadFile(filepath.Join(c.data, "admin.token"))
	must(c.t, err)
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, "http://"+c.http+"/metrics", http.NoBody)
	must(c.t, err)
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	resp, err := http.DefaultClient.Do(req)
	must(c.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(c.t, err)
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, name+" ") {
			return strings.TrimSpace(line)
		}
	}
	return name + " is not there"
}
