package direct

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/internal/link"
)

func TestCallByCertificate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l, inst := w.callee(w.trust("default", "svc", "in_a", time.Hour))
	p := w.pool(w.trust("default", "caller", "in_b", time.Hour)).Peer(inst, l.Addr().String())
	c, err := p.Conn(within(t))
	if err != nil {
		t.Fatal(err)
	}
	call := who()
	call.Caller.Service = "liar" // what a message says of its caller does not count
	r, err := c.Call(within(t), call)
	if err != nil || r.Err != nil || !strings.Contains(string(r.Body), `"Service":"caller"`) || !strings.Contains(string(r.Body), `"Instance":"in_b"`) {
		t.Errorf("%v, %+v", err, r)
	}
	if p.Ready() != c {
		t.Error("the connection is not kept")
	}
	if g := c.Peer(); g.Addr.String() != l.Addr().String() || g.AuthInfo == nil {
		t.Errorf("peer %+v", g)
	}
}

func TestPins(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other := newWorld(t)
	l, inst := w.callee(w.trust("default", "svc", "in_a", time.Hour))
	for name, test := range map[string]struct {
		caller *ident.Trust
		change func(id, service *string)
		want   errs.Code
	}{
		"another instance": {w.trust("default", "caller", "in_b", time.Hour), func(id, _ *string) { *id = "in_z" }, errs.Unavailable},
		"another service":  {w.trust("default", "caller", "in_b", time.Hour), func(_, s *string) { *s = "other" }, errs.Unavailable},
		"another cluster":  {other.trust("default", "caller", "in_b", time.Hour), nil, errs.Unavailable},
		"other namespace":  {w.trust("elsewhere", "caller", "in_b", time.Hour), func(_, _ *string) {}, errs.PermissionDenied},
	} {
		i := *inst
		if test.change != nil {
			test.change(&i.ID, &i.Declaration.Service)
		}
		p := w.pool(test.caller).Peer(&i, l.Addr().String())
		_, err := p.Conn(within(t))
		var e *errs.Error
		if !errors.As(err, &e) || e.Code != test.want || !e.NotStarted {
			t.Errorf("%s: %v", name, err)
		}
		if !p.Health.Bad() || !p.pool.Trouble() {
			t.Errorf("%s: the peer counts as good", name)
		}
	}
}

func TestNobodyThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, inst := w.callee(w.trust("default", "svc", "in_a", time.Hour))
	dials := make(chan struct{}, 100)
	p := NewPool(PoolOptions{Trust: w.trust("default", "caller", "in_b", time.Hour), Dial: func(context.Context, string) (net.Conn, error) {
		dials <- struct{}{}
		return nil, io.ErrUnexpectedEOF
	}})
	defer p.Close()
	peer := p.Peer(inst, "127.0.0.1:1")
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := peer.Conn(within(t)); errs.CodeOf(err) != errs.Unavailable {
				t.Errorf("got %v", err)
			}
		})
	}
	wg.Wait()
	if n := len(dials); n > 3 {
		t.Errorf("%d dials for one peer that does not answer", n)
	}
	p.Forget(inst.ID)
	if p.Trouble() {
		t.Error("a peer that is gone still counts as trouble")
	}
	if _, err := peer.Conn(within(t)); errs.CodeOf(err) != errs.Unavailable {
		t.Errorf("a peer that is gone: %v", err)
	}
}

func TestWaitingForADialEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, inst := w.callee(w.trust("default", "svc", "in_a", time.Hour))
	p := NewPool(PoolOptions{Trust: w.trust("default", "caller", "in_b", time.Hour), Dial: func(ctx context.Context, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	defer p.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := p.Peer(inst, "127.0.0.1:1").Conn(ctx); errs.CodeOf(err) != errs.DeadlineExceeded {
		t.Errorf("got %v", err)
	}
}

func TestRevocationClosesBothEnds(t *testing.T) {
	t.Parallel()
	for name, revoke := range map[string]func(caller, callee *ident.Trust){
		"the callee hears that the caller is revoked":  func(_, callee *ident.Trust) { callee.Revoke(false, []string{"key_in_b"}, nil) },
		"the caller hears that the callee is revoked":  func(caller, _ *ident.Trust) { caller.Revoke(false, nil, []string{"default/in_a"}) },
		"the caller hears that the callee's key is so": func(caller, _ *ident.Trust) { caller.Revoke(true, []string{"key_in_a"}, nil) },
	} {
		w := newWorld(t)
		callee, caller := w.trust("default", "svc", "in_a", time.Hour), w.trust("default", "caller", "in_b", time.Hour)
		l, inst := w.callee(callee)
		pool := w.pool(caller)
		p := pool.Peer(inst, l.Addr().String())
		c, err := p.Conn(within(t))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := pool.DialHTTP2(within(t), "in_a")
		if err != nil {
			t.Fatal(err)
		}
		revoke(caller, callee)
		select {
		case <-c.Done():
		case <-time.After(2 * time.Second):
			t.Errorf("%s: the connection stays", name)
		}
		_ = raw.SetReadDeadline(time.Now().Add(2 * time.Second))
		b := make([]byte, 4096)
		for err = nil; err == nil; {
			_, err = raw.Read(b)
		}
		var late net.Error
		if errors.As(err, &late) && late.Timeout() {
			t.Errorf("%s: the HTTP/2 connection stays", name)
		}
		_ = raw.Close()
		for ctx := within(t); p.Ready() == c && ctx.Err() == nil; {
			runtime.Gosched() // its keeper is about to find out
		}
		if _, err := p.Conn(within(t)); err == nil {
			t.Errorf("%s: there is a new connection", name)
		}
	}
}

func TestConnectionEndsWithItsLeaf(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	callee, caller := w.trust("default", "svc", "in_a", time.Hour), w.trust("default", "caller", "in_b", 2*time.Second)
	l, inst := w.callee(callee)
	p := w.pool(caller).Peer(inst, l.Addr().String())
	c, err := p.Conn(within(t))
	if err != nil {
		t.Fatal(err)
	}
	// The successor comes at two thirds of the shorter life, with the new certificate.
	w.certify(caller, "default", "caller", "in_b", time.Hour)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for p.Ready() == c {
		select {
		case <-tick.C:
		case <-time.After(5 * time.Second):
			t.Fatal("no successor was opened")
		}
	}
	next := p.Ready()
	if next == nil || !next.notAfter.After(c.notAfter) {
		t.Fatalf("the successor is %+v", next)
	}
	if r, err := next.Call(within(t), who()); err != nil || r.Err != nil {
		t.Errorf("%v, %+v", err, r)
	}
	select {
	case <-c.Done():
	case <-time.After(5 * time.Second):
		t.Error("the old connection outlives its leaf")
	}
}

func TestAcceptorClosesAtTheEndOfTheLeaf(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l, _ := w.callee(w.trust("default", "svc", "in_a", time.Hour))
	caller := w.trust("default", "caller", "in_b", 1500*time.Millisecond)
	nc, err := tls.Dial("tcp", l.Addr().String(), caller.ClientConfig(ident.Expect{Instance: "in_a"}, link.ALPN))
	if err != nil {
		t.Fatal(err)
	}
	c, err := link.Dial(within(t), nc, link.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(nil)
	select {
	case <-c.Done():
	case <-time.After(5 * time.Second):
		t.Error("the acceptor keeps a connection whose certificate has ended")
	}
}

func TestDrain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l, inst := w.callee(w.trust("default", "svc", "in_a", time.Hour))
	p := w.pool(w.trust("default", "caller", "in_b", time.Hour)).Peer(inst, l.Addr().String())
	c, err := p.Conn(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Drain(within(t)); err != nil {
		t.Fatal(err)
	}
	<-c.Done()
	for ctx := within(t); p.Ready() != nil && ctx.Err() == nil; {
		runtime.Gosched() // its keeper is about to find out
	}
	if _, err := p.Conn(within(t)); errs.CodeOf(err) != errs.Unavailable || !errs.From(err).NotStarted {
		t.Errorf("a new connection while draining: %v", err)
	}
}

// A call that begins as soon as its connection is accepted is waited for by a drain that
// begins at the same moment.
func TestDrainWaitsForTheFirstCall(t *testing.T) {
	t.Parallel()
	for range 20 {
		w := newWorld(t)
		l, inst := w.callee(w.trust("default", "svc", "in_a", time.Hour))
		p := w.pool(w.trust("default", "caller", "in_b", time.Hour)).Peer(inst, l.Addr().String())
		var wg sync.WaitGroup
		wg.Go(func() {
			c, err := p.Conn(within(t))
			if err == nil {
				_, err = c.Call(within(t), who())
			}
			if e := errs.From(err); e != nil && !e.NotStarted {
				t.Errorf("a call was cut off: %v", err)
			}
		})
		if err := l.Drain(within(t)); err != nil {
			t.Error(err)
		}
		wg.Wait()
	}
}

func TestStrangers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l, _ := w.callee(w.trust("default", "svc", "in_a", time.Hour))
	for name, config := range map[string]*tls.Config{
		"no certificate, h2":      {InsecureSkipVerify: true, NextProtos: []string{"h2"}},
		"no certificate, telford": {InsecureSkipVerify: true, NextProtos: []string{link.ALPN}},
		"no protocol":             {InsecureSkipVerify: true},
	} {
		nc, err := tls.Dial("tcp", l.Addr().String(), config)
		if err == nil {
			_ = nc.SetReadDeadline(time.Now().Add(5 * time.Second))
			_, err = nc.Read(make([]byte, 1))
			_ = nc.Close()
		}
		var late net.Error
		if err == nil || errors.As(err, &late) && late.Timeout() {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Garbage instead of a handshake costs that connection only.
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := raw.Write([]byte("GET / HTTP/1.1\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, raw)
	_ = raw.Close()
	l.Close()
	l.Close()
}

// A peer that did not answer is tried again when it is time, and not more often.
func TestProbe(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l, inst := w.callee(w.trust("default", "svc", "in_a", time.Hour))
	var dials atomic.Int64
	p := NewPool(PoolOptions{Trust: w.trust("default", "caller", "in_b", time.Hour), Dial: func(ctx context.Context, addr string) (net.Conn, error) {
		if dials.Add(1) == 1 {
			return nil, io.ErrUnexpectedEOF
		}
		return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	}})
	defer p.Close()
	peer := p.Peer(inst, l.Addr().String())
	if _, err := peer.Conn(within(t)); err == nil || !peer.Health.Bad() {
		t.Fatalf("the first dial: %v, bad %v", err, peer.Health.Bad())
	}
	ctx := within(t)
	for peer.Ready() == nil {
		for range 100 {
			peer.Probe()
		}
		if ctx.Err() != nil {
			t.Fatal("it is not tried again")
		}
		runtime.Gosched()
	}
	if n := dials.Load(); n != 2 {
		t.Errorf("%d dials, want the one that failed and one more", n)
	}
	if peer.Health.Bad() || p.Trouble() {
		t.Error("it counts as trouble")
	}
}

// News that come between the judgement of a connection and its place in the books do not
// get lost.
func TestRevokedWhileAccepted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	callee, caller := w.trust("default", "svc", "in_a", time.Hour), w.trust("default", "caller", "in_b", time.Hour)
	l, _ := w.callee(callee)
	id := caller.Identity()
	if refused := l.judge(id, true); refused != nil {
		t.Fatal(refused)
	}
	callee.Revoke(false, []string{id.KeyID}, nil)
	if err := l.track(&served{id: id}); errs.CodeOf(err) != errs.PermissionDenied {
		t.Errorf("it is served: %v", err)
	}
}
