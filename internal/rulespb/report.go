package rulespb

import (
	"math"
	"time"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/policy"
)

// Report is what an instance has seen that the runtime wants to know.
type Report struct {
	Denials []Denial
	// Failing are instances that this one has ceased to call.
	Failing []string
}

// Denial counts calls that rules have denied or, when Shadow, would have denied.
type Denial struct {
	Caller, Service, Method string
	// By is the pair whose rules they are.
	By     policy.Pair
	Shadow bool
	Count  uint64
}

// ReportToProto converts a report; nil gives nil.
func ReportToProto(r *Report) *telfordv1.Report {
	if r == nil {
		return nil
	}
	return &telfordv1.Report{Denials: each(r.Denials, DenialToProto), Failing: r.Failing}
}

// ReportFromProto is the reverse; nil gives nil.
func ReportFromProto(p *telfordv1.Report) *Report {
	if p == nil {
		return nil
	}
	return &Report{Denials: each(p.GetDenials(), DenialFromProto), Failing: p.GetFailing()}
}

// DenialToProto converts a count of denials.
func DenialToProto(d Denial) *telfordv1.Denial {
	return &telfordv1.Denial{
		Caller: d.Caller, Service: d.Service, Method: d.Method, By: PairToProto(d.By), Shadow: d.Shadow, Count: d.Count,
	}
}

// DenialFromProto is the reverse; nil gives the zero value.
func DenialFromProto(p *telfordv1.Denial) Denial {
	return Denial{
		Caller: p.GetCaller(), Service: p.GetService(), Method: p.GetMethod(), By: PairFromProto(p.GetBy()),
		Shadow: p.GetShadow(), Count: p.GetCount(),
	}
}

// each converts a list; an empty one gives nil.
func each[A, B any](list []A, f func(A) B) []B {
	if len(list) == 0 {
		return nil
	}
	out := make([]B, len(list))
	for i, a := range list {
		out[i] = f(a)
	}
	return out
}

// duration clamps: a duration beyond what Go holds is as good as the longest.
func duration(us int64) time.Duration {
	const most = math.MaxInt64 / int64(time.Microsecond)
	return time.Duration(min(max(us, -most), most)) * time.Microsecond
}
