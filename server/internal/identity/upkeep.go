package identity

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	mathrand "math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
)

const (
	upkeepRetry = time.Minute // after a failure, at most; less while certificates are short
	// upkeepLongest is how late a machine that was asleep, or whose clock was set, finds
	// out: timers do not count such time.
	upkeepLongest = time.Minute
)

// upkeep is the timer of an Authority: the runtime's certificate, the issuer, expired
// keys and old revocations.
type upkeep struct {
	a *Authority

	work sync.Mutex // one round at a time; never taken in AfterCommit

	mu     sync.Mutex // guards what follows
	on     bool
	timer  clock.Timer
	at     time.Time // when timer fires
	ctx    context.Context
	cancel context.CancelFunc
	rounds sync.WaitGroup
	renew  time.Time // when the runtime's own certificate is due
}

func newUpkeep(a *Authority) *upkeep { return &upkeep{a: a} }

func (u *upkeep) start() {
	u.mu.Lock()
	if u.on {
		u.mu.Unlock()
		return
	}
	u.on = true
	u.ctx, u.cancel = context.WithCancel(context.Background())
	u.mu.Unlock()
	u.arm()
}

func (u *upkeep) stop() {
	u.mu.Lock()
	if u.on {
		u.on = false
		u.cancel()
		if u.timer != nil {
			u.timer.Stop()
			u.timer = nil
		}
	}
	u.mu.Unlock()
	u.rounds.Wait()
}

// arm sets the timer to the next thing that is due. It does not wait.
func (u *upkeep) arm() {
	if u.running() {
		u.armAt(u.next(u.a.clock.Now()))
	}
}

func (u *upkeep) running() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.on
}

func (u *upkeep) armAt(at time.Time) {
	now := u.a.clock.Now()
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.on {
		return
	}
	if u.timer != nil {
		if u.at.Equal(at) {
			return
		}
		u.timer.Stop()
	}
	u.at = at
	u.timer = u.a.clock.AfterFunc(max(at.Sub(now), time.Millisecond), u.round)
}

// next returns when to look again at what is due.
func (u *upkeep) next(now time.Time) time.Time {
	at := u.due()
	_, step := u.a.ca.current.Load().due(u.a.ca.lives())
	for _, other := range []time.Time{u.a.sweep(now), u.a.ca.issuerRenewAt(), step, now.Add(u.a.ca.lookEvery())} {
		if !other.IsZero() && other.Before(at) {
			at = other
		}
	}
	return at
}

// due is when the runtime's own certificate is to be renewed.
func (u *upkeep) due() time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.renew
}

// round does what is due and sets the timer again.
func (u *upkeep) round() {
	u.mu.Lock()
	if !u.on {
		u.mu.Unlock()
		return
	}
	u.rounds.Add(1)
	ctx, due := u.ctx, u.renew
	u.timer = nil
	u.mu.Unlock()
	defer u.rounds.Done()

	u.work.Lock()
	defer u.work.Unlock()
	a, now := u.a, u.a.clock.Now()
	var failed bool
	note := func(err error) {
		if err != nil && ctx.Err() == nil {
			failed = true
			a.log.Error("identity upkeep", "error", err)
		}
	}
	note(a.ca.advance(ctx))
	note(a.followRoots(ctx))
	if renewed := !due.Equal(u.due()); !renewed && (!now.Before(due) || now.Before(a.trust.Identity().NotBefore)) {
		note(a.renewOwn(ctx))
	}
	note(a.markAlive(ctx, now))
	a.watchExpiry(now)
	a.issued.sweep(now)
	a.renewals.sweep(now)
	next := u.next(now)
	note(a.deleteLapsed(ctx, now))
	if failed || !next.After(now) {
		next = now.Add(min(upkeepRetry, a.cfg.LeafLife/20))
	}
	u.armAt(next)
}

// renewOwn gives the runtime its next certificate and decides when the one after it is
// due: at two thirds of the life, or a little before, so that nodes do not come at once.
func (a *Authority) renewOwn(ctx context.Context) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return errs.New(errs.Internal, "make a key pair: %w", err).In(component, "renew the runtime's certificate")
	}
	self := ident.Identity{
		TrustDomain: a.ca.domain, Namespace: ident.RuntimeNamespace, Service: ident.RuntimeService, Instance: a.cfg.Node,
	}
	dns, ips := ownHosts(a.cfg.Hosts)
	cert, chain, err := a.ca.sign(ctx, leaf{uri: self.URI(), public: &key.PublicKey, dns: dns, ips: ips})
	if err != nil {
		return err
	}
	// The roots go along for those who know only the hash of one, from their key.
	h := a.ca.current.Load()
	for _, more := range h.ways() {
		if !slices.ContainsFunc(chain, func(has []byte) bool { return bytes.Equal(has, more) }) {
			chain = append(chain, more)
		}
	}
	if err := a.trust.SetCertificate(tls.Certificate{Certificate: chain, PrivateKey: key, Leaf: cert}); err != nil {
		return err
	}
	id := a.trust.Identity()
	life := id.NotAfter.Sub(a.clock.Now())
	spread := time.Duration(mathrand.Int64N(int64(life)/20 + 1)) //nolint:gosec // spreads load, keeps no secret
	due := id.RenewAt().Add(-spread)
	a.upkeep.mu.Lock()
	a.upkeep.renew = due
	a.upkeep.mu.Unlock()
	a.ownRevision = h.Revision
	a.log.Debug("the runtime has a new certificate", "not_after", id.NotAfter)
	return nil
}

// aliveFor is how long after its last sign of life a node that shares the store may
// still be using it.
const aliveFor = 3 * time.Minute

// markAlive leaves the sign of life by which Recover knows that a runtime uses a store
// which several may.
func (a *Authority) markAlive(ctx context.Context, now time.Time) error {
	if since := now.Sub(a.alive); !a.cfg.Shared || since >= 0 && since < aliveFor/3 {
		return nil
	}
	if err := a.meta().put(ctx, metaAlive, binary.BigEndian.AppendUint64(nil, uint64(now.UnixMicro()))); err != nil {
		return storageError("leave a sign of life", err)
	}
	a.alive = now
	return nil
}

// ownHosts returns the names and addresses for the runtime's own certificate.
func ownHosts(more []string) (dns []string, ips []net.IP) {
	hosts := []string{"localhost", "127.0.0.1", "::1"}
	if name, err := os.Hostname(); err == nil && name != "" {
		hosts = append(hosts, name)
	}
	seen := make(map[string]bool)
	for _, host := range append(hosts, more...) {
		if host == "" || seen[host] {
			continue
		}
		seen[host] = true
		if ip := net.ParseIP(host); ip != nil {
			ips = append(ips, ip)
		} else {
			dns = append(dns, host)
		}
	}
	return dns, ips
}
