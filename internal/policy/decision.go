package policy

import (
	"strings"

	"telford.dev/telford/internal/errs"
)

// What Decision.Rule says where no rule has an id to be named by.
const (
	// ByCapability: the action is switched off.
	ByCapability = "capability"
	// ByAllowList: there are rules to allow, and none of them matches.
	ByAllowList = "allow_list"
	// ByAllowedCallers: the handler names the services that may call it.
	ByAllowedCallers = "allowed_callers"
)

// The sides of a denial, seen from who acts.
const (
	SideCapability     = "capability"
	SideSelfEgress     = "self_egress"
	SideSelfAcceptance = "self_acceptance"
	SidePeerAcceptance = "peer_acceptance"
)

// Decision is what the policy says of one thing that a service wants to do.
type Decision struct {
	// Allowed: no rule that is enforced denies it.
	Allowed bool
	// ShadowDenied: it is allowed, and would be denied if the rules that are only counted
	// were enforced.
	ShadowDenied bool
	// Rule is the id of the rule that denies it or, when ShadowDenied, would; or one of
	// the By constants. It is empty when nothing does.
	Rule string
	// Side is whose rule it is, one of the Side constants.
	Side string
	// By is the pair whose rules deny it, ShadowBy the one whose would.
	By, ShadowBy Pair
	// Reason says it in words.
	Reason string
	// Nearest is the id of the rule to allow that comes closest to allowing it, or the
	// command that would.
	Nearest string
}

// Err returns the denial as permission_denied, not started; nil when d allows it. The
// method is a workflow or a topic where the action says so; service is empty for events.
func (d *Decision) Err(caller, service, method string) *errs.Error {
	if d.Allowed {
		return nil
	}
	e := errs.New(errs.PermissionDenied, "%s", d.Reason).Unstarted()
	e.Meta = map[string]string{
		"rule": d.Rule, "side": d.Side, "caller": caller, "service": service, "method": method, "nearest": d.Nearest,
	}
	return e
}

// CheckCaller reports whether a handler that names its callers is for this one; an
// empty list is for all. It narrows what the policy allows and never widens it.
func CheckCaller(allowed []string, caller string) bool {
	if len(allowed) == 0 {
		return true
	}
	for _, a := range allowed {
		if a == caller {
			return true
		}
	}
	return false
}

// NotAmongCallers is the denial of a caller that CheckCaller refuses.
func NotAmongCallers(allowed []string, caller, service, method string) *Decision {
	return &Decision{
		Rule: ByAllowedCallers, Side: SidePeerAcceptance, By: Pair{service, Handle},
		Reason: "service " + name(caller) + " may not call " + method + " of " + service +
			": its handler is for " + strings.Join(allowed, ", ") + " only; add " + name(caller) + " to its AllowedCallers",
		Nearest: "AllowedCallers(" + strings.Join(allowed, ", ") + ")",
	}
}

// name is how a message calls a service that may be nobody.
func name(service string) string {
	if service == "" {
		return "(unnamed)"
	}
	return service
}
