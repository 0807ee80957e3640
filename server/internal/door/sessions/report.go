package sessions

import (
	"slices"
	"time"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/policy"
	"telford.dev/telford/internal/rulespb"
	"telford.dev/telford/server/internal/rules"
)

// Bounds of one report.
const (
	maxDenials = 4096
	maxFailing = 4096
	// failingFor is how long the word of an instance that another one fails is worth.
	failingFor = 60 * time.Second
	// maxDenied is the most calls that one denial of a report counts.
	maxDenied = 1 << 32
)

// report takes in what an instance has seen. It is believed about calls to itself, and
// about instances of services that it watches; the rest is left out.
func (p *Port) report(h *held, m *telfordv1.Report) *errs.Error {
	if n := len(m.GetDenials()); n > maxDenials {
		return errs.New(errs.InvalidArgument, "a report of %d denials; at most %d go into one", n, maxDenials)
	}
	if n := len(m.GetFailing()); n > maxFailing {
		return errs.New(errs.InvalidArgument, "a report of %d failing instances; at most %d go into one", n, maxFailing)
	}
	r := rulespb.ReportFromProto(m)
	refused := 0
	service := h.identity().Service
	var shadow []rules.ShadowDenial
	for i := range r.Denials {
		d := &r.Denials[i]
		if !credible(d, service) {
			refused++
			continue
		}
		d.Count = min(d.Count, maxDenied)
		if d.Shadow {
			shadow = append(shadow, rules.ShadowDenial{
				Service: d.By.Service, Action: string(d.By.Action), Caller: d.Caller, Callee: d.Service, Target: d.Method, Count: int64(d.Count),
			})
			continue
		}
		p.server.cfg.Rules.ReportDenied(h.key.namespace, d.By, d.Count)
	}
	if len(shadow) > 0 {
		p.server.cfg.Rules.ReportShadow(h.key.namespace, shadow...)
	}
	until := p.server.cfg.Clock.Now().Add(failingFor)
	for _, id := range r.Failing {
		if !p.watches(h, id) {
			refused++
			continue
		}
		p.server.cfg.Registry.SetFailing(h.key.namespace, id, until)
	}
	if refused > 0 {
		p.server.cfg.Log.Warn("parts of a report are not believed: an instance reports denials of calls to itself and failures of instances that it watches",
			"namespace", h.key.namespace, "service", service, "instance", h.key.instance, "parts", refused)
	}
	return nil
}

// credible reports whether the instance of a service can have seen the denial.
func credible(d *rulespb.Denial, service string) bool {
	var by string
	switch d.By.Action {
	case policy.Call, policy.RunWorkflow:
		by = d.Caller
	case policy.Handle, policy.HandleWorkflow:
		by = d.Service
	default:
		return false
	}
	return d.Count > 0 && d.Service == service && d.By.Service == by &&
		(d.Caller == "" || catalog.ValidName(d.Caller)) && catalog.ValidMethod(d.Method)
}

// watches reports whether the instance watches another one, itself aside.
func (p *Port) watches(h *held, id string) bool {
	if id == h.key.instance || !p.sees.all && len(p.sees.services) == 0 {
		return false
	}
	i, err := p.server.cfg.Registry.Get(h.key.namespace, id)
	return err == nil && (p.sees.all || slices.Contains(p.sees.services, i.Declaration.Service))
}

// sees is what a connection watches. It is the connection's own goroutine's.
type sees struct {
	all      bool
	services []string
}
