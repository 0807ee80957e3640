package identity_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
)

// meet handshakes the two configurations over loopback; the server speaks first.
func meet(t testing.TB, server, client *tls.Config) (serverState tls.ConnectionState, serverErr, clientErr error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	var wg sync.WaitGroup
	wg.Go(func() {
		nc, err := listener.Accept()
		if err != nil {
			serverErr = err
			return
		}
		defer func() { _ = nc.Close() }()
		_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
		conn := tls.Server(nc, server)
		if serverErr = conn.Handshake(); serverErr == nil {
			serverState = conn.ConnectionState()
			_, serverErr = conn.Write([]byte("a"))
			_, _ = io.Copy(io.Discard, conn)
		}
	})
	nc, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	conn := tls.Client(nc, client)
	if clientErr = conn.Handshake(); clientErr == nil {
		_, clientErr = io.ReadFull(conn, make([]byte, 1))
	}
	_ = nc.Close()
	wg.Wait()
	return serverState, serverErr, clientErr
}

func refused(serverErr, clientErr error) error {
	var e *errs.Error
	if errors.As(serverErr, &e) {
		return serverErr
	}
	return clientErr
}

// TestEveryoneMeetsEveryone: what the Authority issues is what both configurations
// accept, for each pair of ends and each protocol.
func TestEveryoneMeetsEveryone(t *testing.T) {
	t.Parallel()
	f := newFixture(newMemory())
	a := f.open(t)
	orders := provision(t, a, f.clk, serviceKey(t, a, "orders"), "orders", "in_1")
	payments := provision(t, a, f.clk, serviceKey(t, a, "payments"), "payments", "in_2")
	for _, proto := range []string{"telford/1", "h2"} {
		for name, pair := range map[string]struct {
			server, client *ident.Trust
			expect         ident.Expect
		}{
			"a service and the runtime": {a.Trust(), orders.trust, ident.Expect{Runtime: true}},
			"two services":              {payments.trust, orders.trust, ident.Expect{Service: "payments", Instance: "in_2", Namespace: "default"}},
			"the runtime and a service": {payments.trust, a.Trust(), ident.Expect{Service: "payments", Instance: "in_2"}},
		} {
			state, serverErr, clientErr := meet(t, pair.server.ServerConfig("telford/1", "h2"), pair.client.ClientConfig(pair.expect, proto))
			if serverErr != nil || clientErr != nil {
				t.Errorf("%s by %s: server %v, client %v", name, proto, serverErr, clientErr)
				continue
			}
			peer, ok := pair.server.Peer(state)
			if diff := cmp.Diff(pair.client.Identity(), peer); !ok || diff != "" || state.NegotiatedProtocol != proto {
				t.Errorf("%s by %s: %q, %s", name, proto, state.NegotiatedProtocol, diff)
			}
		}
	}
	key, other := serviceKey(t, a, "x"), serviceKey(t, newFixture(newMemory()).open(t), "x")
	if _, serverErr, clientErr := meet(t, a.Trust().ServerConfig("h2"), withProto(ident.PinnedConfig(key, f.clk))); serverErr != nil || clientErr != nil {
		t.Errorf("by its key: server %v, client %v", serverErr, clientErr)
	}
	_, _, clientErr := meet(t, a.Trust().ServerConfig("h2"), withProto(ident.PinnedConfig(other, f.clk)))
	wantError(t, clientErr, errs.Unauthenticated, "does not belong to the cluster that made key "+other.ID)

	// A client that verifies host names, as curl with the root does.
	roots := x509.NewCertPool()
	roots.AddCert(a.Roots()[0])
	plain := &tls.Config{RootCAs: roots, ServerName: "localhost", Time: f.clk.Now, NextProtos: []string{"h2"}}
	if _, serverErr, clientErr := meet(t, a.Trust().HTTPConfig("h2"), plain); serverErr != nil || clientErr != nil {
		t.Errorf("by host name: server %v, client %v", serverErr, clientErr)
	}
}

func withProto(c *tls.Config) *tls.Config {
	c.NextProtos = []string{"h2"}
	return c
}

// TestRevocationReachesEveryHandshake: after RevokeKey and RevokeInstance the runtime
// refuses the holder, and so does a process that was told.
func TestRevocationReachesEveryHandshake(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, f *fixture) {
		ctx, a := context.Background(), f.open(t)
		ordersKey := serviceKey(t, a, "orders")
		first, second := provision(t, a, f.clk, ordersKey, "orders", "in_1"), provision(t, a, f.clk, ordersKey, "orders", "in_2")
		payments := provision(t, a, f.clk, serviceKey(t, a, "payments"), "payments", "in_3")
		cancel := a.OnRevocation(func(keys, instances []string) { payments.trust.Revoke(false, keys, instances) })
		defer cancel()
		closed := 0
		unhook := a.Trust().OnRevoke(func() { closed++ })
		defer unhook()

		meetAll := func(p *process) []error {
			_, s1, c1 := meet(t, a.Trust().ServerConfig("telford/1"), p.trust.ClientConfig(ident.Expect{Runtime: true}, "telford/1"))
			_, s2, c2 := meet(t, payments.trust.ServerConfig("telford/1"), p.trust.ClientConfig(ident.Expect{Instance: "in_3"}, "telford/1"))
			id := p.trust.Identity()
			_, _, c3 := meet(t, p.trust.ServerConfig("telford/1"), payments.trust.ClientConfig(ident.Expect{Instance: id.Instance}, "telford/1"))
			return []error{refused(s1, c1), refused(s2, c2), c3}
		}
		if err := errors.Join(append(meetAll(first), meetAll(second)...)...); err != nil {
			t.Fatal(err)
		}
		if err := a.RevokeInstance(ctx, "default", "in_1", "ada", "odd"); err != nil {
			t.Fatal(err)
		}
		for _, err := range meetAll(first) {
			wantError(t, err, errs.PermissionDenied, "the instance is revoked")
		}
		if err := errors.Join(meetAll(second)...); err != nil {
			t.Errorf("another instance of the service: %v", err)
		}
		if _, err := a.RevokeKey(ctx, ordersKey.ID, "ada", "leaked"); err != nil {
			t.Fatal(err)
		}
		for _, err := range meetAll(second) {
			wantError(t, err, errs.PermissionDenied, "its key "+ordersKey.ID+" is revoked")
		}
		if closed != 2 {
			t.Errorf("connections were looked through %d times, want 2", closed)
		}

		// It outlives a restart, until the last certificate has ended.
		again := f.open(t)
		keys, instances := again.Revocations()
		if !slices.Equal(keys, []string{ordersKey.ID}) || !slices.Equal(instances, []string{"default/in_1"}) {
			t.Errorf("after a restart: %v %v", keys, instances)
		}
		_, serverErr, _ := meet(t, again.Trust().ServerConfig("telford/1"), second.trust.ClientConfig(ident.Expect{Runtime: true}, "telford/1"))
		wantError(t, serverErr, errs.PermissionDenied, "is revoked")
		f.clk.Advance(24*time.Hour + time.Minute)
		shorter := f.open(t, leafLife(time.Minute)) // a shorter life later forgets nothing sooner
		if keys, instances := shorter.Revocations(); len(keys) != 1 || len(instances) != 1 {
			t.Errorf("before the slack is over: %v %v", keys, instances)
		}
		if err := shorter.Start(ctx); err != nil {
			t.Fatal(err)
		}
		f.clk.Advance(time.Hour)
		if keys, instances := shorter.Revocations(); len(keys)+len(instances) != 0 {
			t.Errorf("kept for ever: %v %v", keys, instances)
		}
		if keys, instances := f.open(t).Revocations(); len(keys)+len(instances) != 0 {
			t.Errorf("kept for ever in the store: %v %v", keys, instances)
		}
		_, err := f.open(t).Authenticate(ctx, ordersKey.String())
		wantError(t, err, errs.Unauthenticated, "revoked")
	})
}

func TestOnRevocation(t *testing.T) {
	t.Parallel()
	f := newFixture(newMemory())
	ctx, a := context.Background(), f.open(t)
	var heard []string
	cancel := a.OnRevocation(func(keys, instances []string) { heard = append(heard, strings.Join(append(keys, instances...), ",")) })
	k := serviceKey(t, a, "orders")
	for range 2 {
		if _, err := a.RevokeKey(ctx, k.ID, "ada", ""); err != nil {
			t.Fatal(err)
		}
		if err := a.RevokeInstance(ctx, "default", "in_1", "ada", ""); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	cancel()
	if err := a.RevokeInstance(ctx, "default", "in_2", "ada", ""); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{k.ID, "default/in_1"}, heard); diff != "" {
		t.Error(diff)
	}
	for _, bad := range [][2]string{{"", "in_1"}, {"default", ""}, {"default", "a/b"}, {"De fault", "in_1"}} {
		wantError(t, a.RevokeInstance(ctx, bad[0], bad[1], "ada", ""), errs.InvalidArgument)
	}
}

func TestRevokedWhileManyRead(t *testing.T) {
	t.Parallel()
	f := newFixture(newMemory())
	ctx, a := context.Background(), f.open(t)
	if err := a.Start(ctx); err != nil {
		t.Fatal(err)
	}
	told := ident.NewTrust(f.clk)
	cancel := a.OnRevocation(func(keys, instances []string) { told.Revoke(false, keys, instances) })
	defer cancel()
	var keys []ident.Key
	for range 20 {
		keys = append(keys, serviceKey(t, a, "orders"))
	}
	var wg sync.WaitGroup
	for i, k := range keys {
		wg.Go(func() {
			if _, err := a.RevokeKey(ctx, k.ID, "ada", ""); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if _, _, err := a.RotateKey(ctx, keys[(i+7)%len(keys)].ID, time.Nanosecond, "ada"); err != nil && errs.CodeOf(err) != errs.FailedPrecondition {
				t.Error(err)
			}
		})
		wg.Go(func() {
			_, _ = a.Authenticate(ctx, k.String())
			f.clk.Advance(time.Millisecond)
			a.Revocations()
		})
	}
	wg.Wait()
	for _, k := range keys {
		id := ident.Identity{KeyID: k.ID}
		if !a.Trust().Revoked(id) || !told.Revoked(id) {
			t.Errorf("%s is lost", k.ID)
		}
	}
	snapshot, _ := a.Revocations()
	for _, k := range keys {
		if !slices.Contains(snapshot, k.ID) {
			t.Errorf("%s is not listed", k.ID)
		}
	}
}
