package identity

import (
	"fmt"
	"time"

	"telford.dev/telford/server/internal/alarm"
)

const (
	keyExpiry = "key_expiry." // + key id: the code of an alarm
	// maxKeyAlarms is how many keys have an alarm of their own; further ones are counted
	// in one.
	maxKeyAlarms = 20
	moreKeys     = keyExpiry + "more"
	// keyOver is how long the alarm of a key stays after its end.
	keyOver = 24 * time.Hour
)

// notice is a step of the warning that something ends.
type notice struct {
	days  int           // its name
	left  time.Duration // the step begins with this left
	share time.Duration // or with this share of the whole life, if that is less
}

// notices are the steps, the latest first. What lives for less than a few months gets
// each of them later: all that renews itself does so with a third of its life left, and
// before that there is nothing to warn of.
func notices() []notice {
	const day = 24 * time.Hour
	return []notice{{1, day, 32}, {7, 7 * day, 16}, {14, 14 * day, 8}, {30, 30 * day, 4}}
}

// noticed returns the step that an end in the future is in.
func noticed(end, now time.Time, life time.Duration) (notice, bool) {
	left := end.Sub(now)
	for _, n := range notices() {
		n.left = min(n.left, life/n.share)
		if left <= n.left {
			return n, true
		}
	}
	return notice{}, false
}

// span is a duration for people.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= 2*day && d%day == 0:
		return fmt.Sprintf("%d days", d/day)
	case d == day:
		return "1 day"
	default:
		return d.Round(time.Second).String()
	}
}

// severity is critical in the last two steps.
func (n notice) severity() alarm.Severity {
	if n.days <= 7 {
		return alarm.Critical
	}
	return alarm.Warning
}

// watchExpiry raises an alarm for all that ends soon although it should have been
// renewed, in steps, and clears those of what was. It runs with upkeep.work held.
func (a *Authority) watchExpiry(now time.Time) {
	h := a.ca.current.Load()
	active := h.active()
	a.certificateExpiry(now, RoleRoot, active.Made, active.cert.NotAfter,
		"the rotation of the root has not come far enough: see telford pki status and the log, or force it with: telford pki rotate-root --now")
	if issuer := a.ca.issuer.Load(); issuer != nil {
		end := issuer.cert.NotAfter
		// One that ends with its root cannot be renewed: the root has its own alarm.
		if end.Before(active.cert.NotAfter) || !a.ca.issuerActive(issuer) {
			a.certificateExpiry(now, RoleIssuer, madeAt(issuer.cert), end, "the issuer could not be renewed: the log says why")
		} else {
			a.cfg.Alarms.Clear(alarm.CertificateExpiry + "." + RoleIssuer)
		}
	}
	own := a.trust.Identity()
	a.certificateExpiry(now, RoleNode, own.NotBefore, own.NotAfter, "the runtime's own certificate could not be renewed: the log says why")
	a.keyExpiry(now)
}

func (a *Authority) certificateExpiry(now time.Time, role string, made, end time.Time, help string) {
	code := alarm.CertificateExpiry + "." + role
	what := map[string]string{RoleRoot: "the root", RoleIssuer: "the issuer", RoleNode: "the runtime's certificate"}[role]
	n, soon := noticed(end, now, end.Sub(made))
	switch {
	case !soon:
		a.cfg.Alarms.Clear(code)
	case now.After(end):
		a.cfg.Alarms.Raise(code, alarm.Critical, fmt.Sprintf("%s expired at %s; if it does not come back by itself, stop the runtime and run: telford pki recover",
			what, end.UTC().Format(time.RFC3339)))
	default:
		a.cfg.Alarms.Raise(code, n.severity(), fmt.Sprintf("%s expires in less than %s, at %s; %s", what, span(n.left), end.UTC().Format(time.RFC3339), help))
	}
}

// keyExpiry is watchExpiry for service keys. One that was rotated has a successor and
// is to end.
func (a *Authority) keyExpiry(now time.Time) {
	board := a.cfg.Alarms
	if board == nil {
		return
	}
	up := make(map[string]bool)
	more := 0
	for _, k := range a.keys.ending() {
		n, soon := noticed(k.Expires, now, k.Expires.Sub(k.Created))
		if !soon || now.Sub(k.Expires) > keyOver {
			continue
		}
		if len(up) >= maxKeyAlarms {
			more++
			continue
		}
		code := keyExpiry + k.ID
		up[code] = true
		name := fmt.Sprintf("key %s of service %q in namespace %q", k.ID, k.Service, k.Namespace)
		if now.Before(k.Expires) {
			board.Raise(code, n.severity(), fmt.Sprintf("%s expires in less than %s, at %s; make its successor with: telford keys rotate %s",
				name, span(n.left), k.Expires.Format(time.RFC3339), k.ID))
		} else {
			board.Raise(code, alarm.Critical, fmt.Sprintf("%s expired at %s; create another one with: telford keys create --service %s",
				name, k.Expires.Format(time.RFC3339), k.Service))
		}
	}
	if more > 0 {
		up[moreKeys] = true
		board.Raise(moreKeys, alarm.Warning, fmt.Sprintf("%d more keys expire soon; see telford keys list", more))
	}
	for code := range a.keyAlarms {
		if !up[code] {
			board.Clear(code)
		}
	}
	a.keyAlarms = up
}
