package invoke

import "telford.dev/telford/internal/errs"

// denied passes the denial of a policy on. A handler that answers with one has got it
// for a call of its own, and was begun.
func (v *Invoker) denied(r *Route, e *errs.Error) {
	if v.opt.Denied != nil && IsDenial(e) {
		v.opt.Denied(r.key.service, r.key.method, e)
	}
}

// IsDenial reports whether e is a policy's, about the call that it ended.
func IsDenial(e *errs.Error) bool {
	return e != nil && e.Code == errs.PermissionDenied && e.NotStarted && e.Meta["rule"] != ""
}
