package scenarios

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"telford.dev/telford"
	"telford.dev/telford/server/internal/contracttest"
)

// side serves a version of a contract; 0 is none. The handler notes the id of each call,
// and says who it is.
func side(s *telford.Service, journal io.Writer, version int) error {
	begin := func(order string) (string, error) {
		_, err := io.WriteString(journal, order+"\n")
		return s.Identity().Instance, err
	}
	switch version {
	case 1:
		return telford.Handle(s, contracttest.Method, func(_ context.Context, in *contracttest.RequestV1) (*contracttest.ResponseV1, error) {
			who, err := begin(contracttest.Get(in, contracttest.Order))
			return contracttest.Set(new(contracttest.ResponseV1), contracttest.Served, who), err
		})
	case 2:
		return telford.Handle(s, contracttest.Method, func(_ context.Context, in *contracttest.RequestV2) (*contracttest.ResponseV2, error) {
			who, err := begin(contracttest.Get(in, contracttest.Order))
			return contracttest.Set(contracttest.Set(new(contracttest.ResponseV2), contracttest.Served, who), contracttest.Fee, "1"), err
		})
	}
	return nil
}

// oneOrder calls as a program does that was built with version 1 of the contract, and
// twoOrders as one with version 2.
func oneOrder(caller *telford.Service, opts ...telford.CallOption) func(context.Context, string) (string, error) {
	return func(ctx context.Context, id string) (string, error) {
		req := contracttest.Set(new(contracttest.RequestV1), contracttest.Order, id)
		resp, err := telford.Call[contracttest.ResponseV1](ctx, caller, "work", contracttest.Method, req, opts...)
		if err != nil {
			return "", err
		}
		return contracttest.Get(resp, contracttest.Served), nil
	}
}

func twoOrder(caller *telford.Service, opts ...telford.CallOption) func(context.Context, string) (string, error) {
	return func(ctx context.Context, id string) (string, error) {
		req := contracttest.Set(contracttest.Set(new(contracttest.RequestV2), contracttest.Order, id), contracttest.Currency, "EUR")
		resp, err := telford.Call[contracttest.ResponseV2](ctx, caller, "work", contracttest.Method, req, opts...)
		if err != nil {
			return "", err
		}
		if fee := contracttest.Get(resp, contracttest.Fee); fee != "1" {
			return "", fmt.Errorf("the answer has fee %q: it is not of version 2", fee)
		}
		return contracttest.Get(resp, contracttest.Served), nil
	}
}

// anyOrder calls as a program does that was built with neither: it is given to the newest
// version.
func anyOrder(caller *telford.Service, opts ...telford.CallOption) func(context.Context, string) (string, error) {
	return func(ctx context.Context, id string) (string, error) {
		req := struct {
			Order string `json:"order"`
		}{id}
		resp, err := telford.Call[struct {
			Served string `json:"served"`
		}](ctx, caller, "work", contracttest.Method, &req, opts...)
		if err != nil {
			return "", err
		}
		return resp.Served, nil
	}
}

// Two versions of a contract are rolled out and back under load: no call fails, and none
// comes to the other version.
func TestRollOut(t *testing.T) {
	alone(t)
	c := newCluster(t)
	journals := make(map[int][]string)
	instance := func(version int) *worker {
		return c.worker(func(s *workerSpec) {
			s.Contract = version
			journals[version] = append(journals[version], s.Journal)
		})
	}
	fleet := map[int][]*worker{}
	n := size(2, 3)
	for range n {
		fleet[1] = append(fleet[1], instance(1))
	}
	caller := c.caller(n)
	direct, proxy := telford.Transport(telford.Direct), telford.Transport(telford.Proxy)
	pace := size(rate/5, rate)
	one := []*load{
		startAsking(t, "one.direct", pace/8, oneOrder(caller, direct)),
		startAsking(t, "one.proxy", pace/8, oneOrder(caller, proxy)),
		startAsking(t, "one.auto", pace/8, oneOrder(caller)),
		startAsking(t, "any.auto", pace/8, anyOrder(caller)),
		startAsking(t, "any.proxy", pace/8, anyOrder(caller, proxy)),
	}
	all := one
	progress := func(loads ...*load) {
		t.Helper()
		for _, l := range loads {
			l.after(t, size[int64](5, 500))
		}
	}
	progress(one...)
	knows := func(n int) {
		t.Helper()
		within(t, patience, fmt.Sprintf("the caller knows %d instances", n), func() bool { return len(caller.ServiceMap()["work"].Instances) == n })
	}

	for range size(1, 10) {
		// Out, one after another; the first has all the callers of its version.
		fleet[2] = []*worker{instance(2)}
		knows(n + 1)
		two := []*load{
			startAsking(t, "two.direct", pace/8, twoOrder(caller, direct)),
			startAsking(t, "two.proxy", pace/8, twoOrder(caller, proxy)),
			startAsking(t, "two.auto", pace/8, twoOrder(caller)),
		}
		all = append(all, two...)
		for range n - 1 {
			progress(two...)
			fleet[2] = append(fleet[2], instance(2))
		}
		knows(2 * n)
		// Every instance of both versions is replaced while the other version runs.
		for version := range fleet {
			for k, old := range fleet[version] {
				fleet[version][k] = instance(version)
				old.stop(t)
				progress(one...)
				progress(two...)
			}
		}
		knows(2 * n)
		// And back: first the callers of version 2 go, then its instances.
		during(size(200*time.Millisecond, 5*time.Second), nil)
		for _, l := range two {
			l.noFailure(t)
		}
		for _, w := range fleet[2] {
			w.stop(t)
			progress(one...)
		}
		knows(n)
	}
	for _, l := range one {
		l.noFailure(t)
	}
	onceEach(t, c, all...)
	for version, files := range journals {
		calls, neither, wrong := 0, 0, 0
		for _, file := range files {
			b, err := os.ReadFile(file)
			must(t, err)
			for id := range strings.FieldsSeq(string(b)) {
				calls++
				switch meant, _, _ := strings.Cut(id, "."); meant {
				case "any":
					neither++
				case map[int]string{1: "one", 2: "two"}[version]:
				default:
					wrong++
				}
			}
		}
		t.Logf("version %d: its handlers ran %d times, %d of them for callers of neither and %d for those of the other version", version, calls, neither, wrong)
		if wrong > 0 || neither == 0 || calls == neither {
			t.Errorf("version %d: its handlers ran %d times, %d of them for callers of neither and %d for those of the other version", version, calls, neither, wrong)
		}
	}
}
