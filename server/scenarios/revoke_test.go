package scenarios

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"

	"telford.dev/telford"
	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/internal/link"
	"telford.dev/telford/internal/message"
)

// intruder is somebody with a key that is about to be revoked, on every way there is.
// Each way returns the error of one call.
func (c *cluster) intruder(key string, instances []telford.InstanceInfo) map[string]func() error {
	t := c.t
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	ways := make(map[string]func() error)

	sdk := c.started("intruder", telford.CallerOnly(), telford.Uses("work"), telford.WithKey(key))
	must(t, sdk.WaitReady(t.Context(), "work"))
	for name, mode := range map[string]telford.TransportMode{"SDK direct": telford.Direct, "SDK proxy": telford.Proxy, "SDK auto": telford.Auto} {
		ways[name] = func() error {
			_, err := telford.Call[workResp](ctx, sdk, "work", "work", &workReq{ID: "x"}, telford.Transport(mode), telford.MaxAttempts(1), telford.Timeout(time.Second))
			return err
		}
	}

	// Ends that know nothing of revocations, so that it is the others who refuse.
	trust := c.certify(key, "intruder", "in-intruder")
	worker := instances[0]
	body := []byte(`{"id":"x"}`)
	raw, err := dialLink(t, worker.Address, trust, ident.Expect{Instance: worker.ID}, link.Options{})
	must(t, err)
	session := c.session(trust, nil, "")
	for name, l := range map[string]*link.Conn{"raw direct link": raw, "raw session": session.Conn} {
		ways[name] = func() error {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			reply, err := l.Call(ctx, &message.Call{Service: "work", Method: "work", ContentType: message.JSON, Body: body})
			if err == nil && reply.Err != nil {
				return reply.Err
			}
			return err
		}
	}
	ways["a new direct link"] = func() error {
		l, err := dialLink(t, worker.Address, trust, ident.Expect{Instance: worker.ID}, link.Options{})
		if err == nil {
			l.Close(nil)
		}
		return err
	}

	check := func(cc *grpc.ClientConn, md ...string) func() error {
		t.Cleanup(func() { _ = cc.Close() })
		return func() error {
			ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(ctx, md...), time.Second)
			defer cancel()
			_, err := grpc_testing.NewTestServiceClient(cc).EmptyCall(ctx, &grpc_testing.Empty{})
			return err
		}
	}
	client := func(addr string, creds credentials.TransportCredentials) *grpc.ClientConn {
		cc, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(creds), grpc.WithContextDialer(
			func(ctx context.Context, addr string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
			}))
		must(t, err)
		return cc
	}
	ways["gRPC direct"] = check(client(worker.Address, credentials.NewTLS(trust.ClientConfig(ident.Expect{Instance: worker.ID}, "h2"))))
	ways["gRPC with a certificate"] = check(client(c.grpc, credentials.NewTLS(trust.ClientConfig(ident.Expect{Runtime: true}, "h2"))), "telford-service", "work")
	bare := ident.NewTrust(clock.Real())
	bare.SetRoots(trust.Roots())
	ways["gRPC with a key"] = check(client(c.grpc, credentials.NewTLS(bare.ClientConfig(ident.Expect{Runtime: true}, "h2"))),
		"telford-service", "work", "authorization", "Bearer "+key)

	web := &http.Client{Timeout: time.Second, Transport: &http.Transport{}}
	t.Cleanup(web.CloseIdleConnections)
	ways["HTTP"] = func() error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.http+"/call/work/work", bytes.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+key)
		req.Header.Set("Content-Type", "application/json")
		resp, err := web.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("status %d", resp.StatusCode)
		}
		return nil
	}
	return ways
}

// revocationBound is how long a revoked key may still be served.
const revocationBound = 2 * time.Second

// A key that is revoked is refused within two seconds on every way, and for good; what
// flows ends.
func TestRevokedKey(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.workers(1)
	caller := c.caller(1)
	l := startLoad(t, caller, "others", 100, 0)
	key := c.cli("keys", "create", "--service", "intruder")
	ways := c.intruder(key, caller.ServiceMap()["work"].Instances)
	for name, call := range ways {
		if err := call(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	// A stream that flows while the key is revoked.
	flood := c.started("flooded", telford.CallerOnly(), telford.Uses("work"))
	must(t, flood.WaitReady(t.Context(), "work"))
	streams := make(map[string]chan error)
	for name, mode := range map[string]telford.TransportMode{"direct": telford.Direct, "proxy": telford.Proxy} {
		began, ended := make(chan struct{}), make(chan error, 1)
		streams[name] = ended
		go func() {
			n := 0
			for _, err := range telford.Stream[chunk](context.Background(), flood, "work", "flood", &workReq{}, telford.Transport(mode)) {
				if err != nil {
					ended <- err
					return
				}
				if n++; n == 1 {
					close(began)
				}
			}
			ended <- nil
		}()
		<-began
	}

	revoke := func(key string) {
		k, err := ident.ParseKey(key)
		must(t, err)
		c.cli("keys", "revoke", k.ID)
	}
	revoke(key)
	revoked := time.Now()
	var wg sync.WaitGroup
	for name, call := range ways {
		wg.Go(func() {
			for {
				err := call()
				took := time.Since(revoked).Round(time.Millisecond)
				if err != nil {
					t.Logf("%s: refused after %v: %.150v", name, took, err)
					break
				}
				if took > revocationBound {
					t.Errorf("%s: still served %v after the revocation", name, took)
					return
				}
			}
			for range 5 {
				if call() == nil {
					t.Errorf("%s: served again after it was refused", name)
				}
			}
		})
	}
	wg.Wait()
	if _, err := c.provision(key, "intruder", "in-again"); err == nil || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("a certificate for a revoked key: %v", err)
	}

	revoke(c.key("flooded"))
	revoked = time.Now()
	for name, ended := range streams {
		limit := time.NewTimer(revocationBound)
		select {
		case err := <-ended:
			t.Logf("the %s stream ended after %v: %.150v", name, time.Since(revoked).Round(time.Millisecond), err)
			if err == nil {
				t.Errorf("the %s stream ended as if it were whole", name)
			}
		case <-limit.C:
			t.Errorf("the %s stream flows on", name)
		}
		limit.Stop()
	}
	l.noFailure(t)
}
