package router_test

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/server/internal/router"
)

// quietIndex is an index without a lock, as the registry is.
type quietIndex struct{ instances []*catalog.Instance }

func (x *quietIndex) Candidates(_, service string) []*catalog.Instance {
	if service != "payments" {
		return nil
	}
	return x.instances
}
func (x *quietIndex) Services(string) []string                   { return []string{"payments"} }
func (x *quietIndex) ServicesWithMethod(string, string) []string { return []string{"payments"} }

// quietLink answers at once and counts nothing.
type quietLink struct{ reply message.Reply }

func (l *quietLink) Call(context.Context, *message.Call) (*message.Reply, error) {
	return &l.reply, nil
}

func (l *quietLink) Stream(context.Context, *message.Call) (message.Stream, error) {
	return nil, nil
}

// BenchmarkProxy is what the router itself costs a call: resolution, pick, accounting
// and the call that it makes of the one it was given.
func BenchmarkProxy(b *testing.B) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	for _, n := range []int{1, 3, 16, 100} {
		x := new(quietIndex)
		r := router.New(router.Config{Index: x})
		for i := range n {
			in := instance(fmt.Sprintf("in%d", i))
			x.instances = append(x.instances, in)
			r.Attach("default", in.ID, &quietLink{reply: message.Reply{ContentType: message.JSON, Body: []byte(`{}`)}})
		}
		h := r.AsHandler(message.Caller{Namespace: "default", Service: "orders", Instance: "caller"}, "")
		for name, t := range map[string]message.Target{"plain": {}, "realm": {Realm: "*"}} {
			call := &message.Call{
				Service: "payments", Method: "charge", ContentType: message.JSON, Body: []byte(`{}`), RequestID: "r", ChainRoot: "r",
				Target: t, Headers: []message.Pair{{Key: "k", Value: []byte("v")}},
			}
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				before := cpuTime(b)
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if reply := h.HandleCall(ctx, call); reply.Err != nil {
							b.Fatal(reply.Err)
						}
					}
				})
				b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
			})
		}
	}
}

// cpuTime is what this process has used so far: unlike the time on the wall it does not
// depend on who else uses the machine.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
