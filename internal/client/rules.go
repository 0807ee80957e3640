package client

import (
	"math/rand/v2"
	"time"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/rulespb"
)

// Denials are what the rules have denied here, for the runtime to be told of.
type Denials interface {
	// Take returns what there is since the last time.
	Take() []rulespb.Denial
	// Return gives back what could not be sent.
	Return([]rulespb.Denial)
}

// maxFailing bounds the instances that one report names.
const maxFailing = 1024

// ReportFailing has the runtime told that an instance is not called from here any more
// because it fails. Beyond 1,024 instances between two reports it is of no consequence.
func (s *Session) ReportFailing(instance string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.failing) < maxFailing {
		if s.failing == nil {
			s.failing = make(map[string]struct{})
		}
		s.failing[instance] = struct{}{}
	}
}

// reportEvery is about how often a report is sent.
const reportEvery = 5 * time.Second

// reportIn is when the next report is due: instances started together do not report
// together.
func reportIn() time.Duration {
	return time.Duration((0.8 + 0.4*rand.Float64()) * float64(reportEvery)) //nolint:gosec // spreads load, guards nothing
}

// report tells the runtime what there is to be told. Denials that cannot be sent are
// kept; of failing instances the next call tells again.
func (s *Session) report(p *port) {
	var r rulespb.Report
	if s.opt.Denials != nil {
		r.Denials = s.opt.Denials.Take()
	}
	s.mu.Lock()
	for id := range s.failing {
		r.Failing = append(r.Failing, id)
	}
	s.failing = nil
	s.mu.Unlock()
	if len(r.Denials)+len(r.Failing) == 0 {
		return
	}
	m := &telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Report{Report: rulespb.ReportToProto(&r)}}
	if err := p.conn.Control(marshal(m)); err != nil && len(r.Denials) > 0 {
		s.opt.Denials.Return(r.Denials)
	}
}

// ruling is which rules are in force.
type ruling struct{ dial, epoch, revision uint64 }

// follows reports whether r is as new as what is in force. Revisions of two processes of
// the runtime cannot be compared: there the later connection counts.
func (r ruling) follows(last ruling) bool {
	if r.epoch == last.epoch {
		return r.revision >= last.revision
	}
	return r.dial >= last.dial
}

// ruled puts rules in force, on the reader: before any call that comes behind them.
func (p *port) ruled(m *telfordv1.Rules) {
	s := p.s
	s.rules.Lock()
	defer s.rules.Unlock()
	next := ruling{p.dial, p.epoch, m.GetRevision()}
	if s.rules.known && !next.follows(s.rules.last) {
		return
	}
	s.rules.last, s.rules.known = next, true
	if s.opt.Rules != nil {
		s.opt.Rules(rulespb.FromProto(m))
	}
}

// hasRules reports whether there are rules in force.
func (s *Session) hasRules() bool {
	s.rules.Lock()
	defer s.rules.Unlock()
	return s.rules.known
}

// ofPolicy reports whether a warning says that policy forbids something.
func ofPolicy(w catalog.DeclarationWarning) bool { return w.Side != catalog.SideDeclaration }

// violation is why an instance that wants its declarations to be allowed does not begin;
// nil when they are.
func violation(warnings []catalog.DeclarationWarning) *errs.Error {
	var first *catalog.DeclarationWarning
	more := -1
	for i := range warnings {
		if ofPolicy(warnings[i]) {
			if more++; first == nil {
				first = &warnings[i]
			}
		}
	}
	if first == nil {
		return nil
	}
	what := ReasonPolicy + " " + first.Declaration + " " + first.Value
	e := errs.New(errs.PermissionDenied, "%s: %s", what, first.Reason)
	if more > 0 {
		e = errs.New(errs.PermissionDenied, "%s: %s; and %d more", what, first.Reason, more)
	}
	return e.With(disconnect, what).With("declaration", first.Declaration).With("value", first.Value).With("side", first.Side)
}

// disconnect is where a failure carries the reason of Events.Disconnected.
const disconnect = "disconnect"
