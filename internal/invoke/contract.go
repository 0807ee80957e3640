package invoke

import "telford.dev/telford/internal/errs"

// throughRuntime readies a call for the runtime, which resolves the method itself and is
// told of the caller's contract.
func (r *Route) throughRuntime(c *Call) {
	c.Conn, c.Method = nil, r.key.method
	c.Target.Contract, c.Target.PreferContract = r.key.wish.Contract, r.key.wish.Lenient
}

// directly readies a call for the instances that are known, which are of one contract.
func (k *resolved) directly(c *Call) {
	c.Method, c.Avoid = k.method, nil
	c.Target.Contract, c.Target.PreferContract = "", false
}

// settled reports whether the runtime would refuse a call as this process has: of
// contracts it knows what it has told, as long as they are connected.
func (v *Invoker) settled(e *errs.Error) bool {
	return e.Code == errs.NoInstance && e.Meta[errs.MetaReason] == errs.ReasonContract && v.opt.Proxy.Up()
}
