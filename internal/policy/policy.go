// Package policy owns the access policy: what a rule is, what rules together allow, and
// who has to know which of them. It decides and explains; it never enforces, stores or
// sends anything: callees, the runtime and the SDK do. It starts no goroutines and does
// no I/O.
package policy

// Action is something that a service does, or accepts that others do with it.
type Action string

// The actions. Those that end in handle are the callee's, the others the caller's.
const (
	Call           Action = "rpc.call"
	Handle         Action = "rpc.handle"
	Publish        Action = "event.publish"
	HandleEvent    Action = "event.handle"
	RunWorkflow    Action = "workflow.run"
	HandleWorkflow Action = "workflow.handle"
	// HandleJob has no rules, as jobs are started by the runtime alone; it can only be
	// switched off.
	HandleJob Action = "job.handle"
)

// Actions returns all actions, in a stable order.
func Actions() []Action {
	return []Action{Call, Handle, Publish, HandleEvent, RunWorkflow, HandleWorkflow, HandleJob}
}

// Known reports whether a is one of the actions.
func (a Action) Known() bool { return a == HandleJob || a.ruled() }

// ruled reports whether rules may be about a.
func (a Action) ruled() bool { return a.bilateral() || a.ofEvents() }

// bilateral reports whether a is one side of what two services do, so that its rules
// name a peer.
func (a Action) bilateral() bool {
	switch a {
	case Call, Handle, RunWorkflow, HandleWorkflow:
		return true
	}
	return false
}

// ofEvents reports whether the targets of a are topics.
func (a Action) ofEvents() bool { return a == Publish || a == HandleEvent }

// Effect is what a rule does with what it matches.
type Effect string

// The effects.
const (
	Allow Effect = "allow"
	Deny  Effect = "deny"
)

// Rule allows or denies one action of one service.
type Rule struct {
	ID string `json:"id"`
	// Service is the exact name of the service whose rule it is.
	Service string `json:"service"`
	Action  Action `json:"action"`
	Effect  Effect `json:"effect"`
	// Peer is a glob over the name of the service at the other end; empty means any.
	// Rules about events have none.
	Peer string `json:"peer,omitempty"`
	// Target is a glob over the method, by its full name or its last segment, or over
	// the workflow; for events a pattern of topics. Empty means any.
	Target string `json:"target,omitempty"`
	// Shadow rules are not enforced: what they would deny is counted.
	Shadow bool `json:"shadow,omitempty"`
}

// Pair is an action of a service.
type Pair struct {
	Service string `json:"service"`
	Action  Action `json:"action"`
}

// String returns "orders rpc.call".
func (p Pair) String() string { return p.Service + " " + string(p.Action) }

// Set is the whole policy of a namespace, or the share of it that one service has to
// know.
type Set struct {
	Rules []Rule
	// Off are the actions that are switched off.
	Off []Pair
	// Restricted are pairs of others that have rules to allow, none of which is in
	// Rules; Shadowed the same with rules that are only counted.
	Restricted, Shadowed []Pair
}

// Operator is the name under which operators call. Every policy lets them pass.
const Operator = "telford.operator"

// SystemNamespace is the namespace of the runtime's own identity, which passes too: what
// it delivers it has judged already.
const SystemNamespace = "telford"

// Exempt reports whether a caller is above every policy.
func Exempt(namespace, service string) bool {
	return service == Operator || namespace == SystemNamespace
}
