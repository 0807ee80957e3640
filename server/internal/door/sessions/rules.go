package sessions

import (
	"bytes"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/catalogpb"
	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/limit"
	"telford.dev/telford/internal/policy"
	"telford.dev/telford/internal/rulespb"
	"telford.dev/telford/internal/transport"
	"telford.dev/telford/server/internal/rules"
)

// Rules has what operators have laid down; *rules.Rules is one.
type Rules interface {
	PolicySet(namespace string) policy.Set
	Limits(namespace string) []rules.Stored[limit.Rule]
	Transports(namespace string) []rules.Stored[transport.Rule]
	OnChange(f func(namespace string)) (cancel func())
	ReportShadow(namespace string, denials ...rules.ShadowDenial)
	ReportDenied(namespace string, by policy.Pair, count uint64)
}

// coalesce is how long a change of the rules waits for further ones before it is sent.
const coalesce = 50 * time.Millisecond

// The field numbers of telford.v1.Rules, and of rules in telford.v1.ServerMessage.
const (
	fieldRulesRevision = 1
	fieldRules         = 13
)

// maxShares is how many shares are kept before those of services without a session are
// dropped.
const maxShares = 1024

// shareKey names a service, or all of a namespace where service is empty.
type shareKey struct{ namespace, service string }

// part is a piece of telford.v1.Rules, marshalled. Who has the same part as before has
// the same content.
type part struct{ bytes []byte }

// share is what the instances of one service have to know of the rules.
type share struct {
	key shareKey

	mu     sync.Mutex // held while it is made
	made   bool
	round  uint64 // of the namespace, when it was made
	census uint64 // of the share, when it was made
	policy *part
	rest   *part // limits and transports
	// scoped: a limit in it is divided among the instances of the service.
	scoped atomic.Bool
}

// pushes keeps the shares and knows who has to hear of new ones.
type pushes struct {
	server *Server

	mu     sync.Mutex // a leaf: nothing is called with it held
	rounds map[string]uint64
	// census counts how often the number of instances of a service has changed.
	census map[shareKey]uint64
	shares map[shareKey]*share
	dirty  map[shareKey]struct{}
	timer  clock.Timer
	off    bool
	// revision is that of the latest message.
	revision uint64
}

func (x *pushes) init(s *Server) {
	x.server = s
	x.rounds, x.census = make(map[string]uint64), make(map[shareKey]uint64)
	x.shares, x.dirty = make(map[shareKey]*share), make(map[shareKey]struct{})
}

// changed is told that the rules of a namespace have changed. It does not wait.
func (x *pushes) changed(namespace string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.rounds[namespace]++
	x.mark(shareKey{namespace: namespace})
}

// counted is told that the instances of a service have changed. It does not wait.
func (x *pushes) counted(namespace, service string) {
	if x.server.cfg.Shares == nil {
		return
	}
	k := shareKey{namespace, service}
	x.mu.Lock()
	defer x.mu.Unlock()
	if sh := x.shares[k]; sh != nil {
		x.census[k]++
		if sh.scoped.Load() {
			x.mark(k)
		}
	}
}

// Counted has the server look whether a change of the instances of a service changes what
// each of them has to keep to. It does not wait, and may be called with locks held.
func (s *Server) Counted(namespace, service string) { s.pushes.counted(namespace, service) }

// mark has the instances concerned look at their rules soon, with mu held.
func (x *pushes) mark(k shareKey) {
	if x.off {
		return
	}
	x.dirty[k] = struct{}{}
	if x.timer == nil {
		x.timer = x.server.cfg.Clock.AfterFunc(coalesce, x.wake)
	}
}

// wake tells the connections concerned. Each sends what is new to it on its own.
func (x *pushes) wake() {
	x.mu.Lock()
	dirty := x.dirty
	x.dirty, x.timer = make(map[shareKey]struct{}), nil
	x.mu.Unlock()
	s := x.server
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := range s.ports {
		h := p.held.Load()
		if h == nil {
			continue
		}
		_, all := dirty[shareKey{namespace: h.key.namespace}]
		_, one := dirty[shareKey{h.key.namespace, h.identity().Service}]
		if !all && !one {
			continue
		}
		p.ruled.Store(true)
		select {
		case p.news <- struct{}{}:
		default:
		}
	}
}

// stop ends what is under way.
func (x *pushes) stop() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.off = true
	if x.timer != nil {
		x.timer.Stop()
		x.timer = nil
	}
}

// next numbers a message.
func (x *pushes) next() uint64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.revision++
	return x.revision
}

// share returns the share of a service as of now, encoded once for all its instances.
func (x *pushes) share(namespace, service string) (policy, rest *part, err error) {
	k := shareKey{namespace, service}
	x.mu.Lock()
	sh := x.shares[k]
	if sh == nil {
		if len(x.shares) >= maxShares {
			x.mu.Unlock()
			x.prune()
			x.mu.Lock()
		}
		if sh = x.shares[k]; sh == nil {
			sh = &share{key: k}
			x.shares[k] = sh
		}
	}
	x.mu.Unlock()

	sh.mu.Lock()
	defer sh.mu.Unlock()
	// Read before what they stand for: what comes later is made again.
	x.mu.Lock()
	round, census := x.rounds[namespace], x.census[k]
	x.mu.Unlock()
	if sh.made && sh.round == round && sh.census == census {
		return sh.policy, sh.rest, nil
	}
	before, made := sh.rest, sh.made
	if err := sh.make(x.server.cfg.Rules, x.server.cfg.Shares); err != nil {
		return nil, nil, err
	}
	sh.made, sh.round, sh.census = true, round, census
	x.mu.Lock()
	defer x.mu.Unlock()
	if made && sh.rest != before || sh.scoped.Load() && x.census[k] != census {
		x.mark(k) // who asked is not the only one concerned, and nobody else may have been told
	}
	return sh.policy, sh.rest, nil
}

// prune drops the shares of services without a session.
func (x *pushes) prune() {
	s := x.server
	live := make(map[shareKey]bool)
	s.mu.Lock()
	for _, h := range s.sessions {
		live[shareKey{h.key.namespace, h.identity().Service}] = true
	}
	s.mu.Unlock()
	x.mu.Lock()
	defer x.mu.Unlock()
	for k := range x.shares {
		if !live[k] {
			delete(x.shares, k)
			delete(x.census, k)
		}
	}
}

// make makes the share anew, keeping the parts that say what they said before.
func (sh *share) make(from Rules, shares func(string, string, []limit.Rule) ([]limit.Rule, bool)) error {
	all := from.PolicySet(sh.key.namespace)
	mine := all.For(sh.key.service)
	rest := rulespb.Rules{}
	for _, l := range from.Limits(sh.key.namespace) {
		if l.Rule.Service == sh.key.service {
			rest.Limits = append(rest.Limits, l.Rule)
		}
	}
	if shares != nil {
		var divided bool
		rest.Limits, divided = shares(sh.key.namespace, sh.key.service, rest.Limits)
		sh.scoped.Store(divided)
	}
	for _, t := range from.Transports(sh.key.namespace) {
		rest.Transports = append(rest.Transports, t.Rule)
	}
	restProto := rulespb.ToProto(&rest)
	restProto.Policy = nil
	if err := refresh(&sh.policy, &telfordv1.Rules{Policy: rulespb.PolicyToProto(&mine)}); err != nil {
		return err
	}
	return refresh(&sh.rest, restProto)
}

func refresh(p **part, m *telfordv1.Rules) error {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return err
	}
	if *p == nil || !bytes.Equal((*p).bytes, b) {
		*p = &part{b}
	}
	return nil
}

// told is what an instance was told last over one connection. It is the connection's own
// goroutine's.
type told struct {
	policy, rest *part
	warnings     []byte
	revision     uint64
}

// sendRules sends the rules of the instance if they are others than it was told over
// this connection. judge: its declaration is another one too.
func (p *Port) sendRules(judge bool) error {
	s := p.server
	h := p.held.Load()
	service := h.identity().Service
	policyPart, rest, err := s.pushes.share(h.key.namespace, service)
	if err != nil {
		return errs.New(errs.Internal, "encode the rules of service %s: %w", service, err)
	}
	warnings := p.told.warnings
	if judge || policyPart != p.told.policy {
		m := &telfordv1.Rules{Warnings: catalogpb.WarningsToProto(s.cfg.Registry.Forbidden(h.key.namespace, h.key.instance))}
		if warnings, err = (proto.MarshalOptions{Deterministic: true}).Marshal(m); err != nil {
			return errs.New(errs.Internal, "encode the warnings of instance %s: %w", h.key.instance, err)
		}
	}
	if p.told.revision > 0 && policyPart == p.told.policy && rest == p.told.rest && bytes.Equal(warnings, p.told.warnings) {
		return nil
	}
	next := told{policyPart, rest, warnings, s.pushes.next()}
	p.told = next
	return p.t.Control(next.message())
}

// message is the whole, marshalled as a telford.v1.ServerMessage.
func (t *told) message() []byte {
	head := protowire.AppendTag(nil, fieldRulesRevision, protowire.VarintType)
	head = protowire.AppendVarint(head, t.revision)
	n := len(head) + len(t.policy.bytes) + len(t.rest.bytes) + len(t.warnings)
	b := make([]byte, 0, n+16)
	b = protowire.AppendTag(b, fieldRules, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(n))
	b = append(b, head...)
	b = append(b, t.policy.bytes...)
	b = append(b, t.rest.bytes...)
	return append(b, t.warnings...)
}

// sendNews sends what has come up since: revocations, roots, and rules.
func (p *Port) sendNews() {
	if p.beat == nil {
		return // HelloAck will be followed by all of it
	}
	p.sendRevocations()
	if p.rooted.Load() && p.sendRoots() != nil {
		return // the end of the connection is noticed elsewhere
	}
	if !p.ruled.Swap(false) || p.retiring() {
		return
	}
	if err := p.sendRules(false); err != nil && errs.CodeOf(err) == errs.Internal {
		p.server.cfg.Log.Error("rules are not sent", "namespace", p.owner.Identity.Namespace, "service", p.owner.Identity.Service, "error", err)
	}
}
