package registry

import (
	"strconv"
	"time"

	"telford.dev/telford/internal/errs"
)

// SetQuota bounds the instances that are registered in a namespace at once; 0 means any
// number. Those beyond a new quota stay, and may register again.
func (r *Registry) SetQuota(namespace string, instances int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if instances > 0 || (*r.namespaces.Load())[namespace] != nil {
		r.namespace(namespace).quota = max(instances, 0)
	}
}

// OnService has f called when something about the instances of a service has changed. It
// is called with locks held: it must not wait, nor change the registry. The last f given
// is the one.
func (r *Registry) OnService(f func(namespace, service string)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.onService = f
}

// join reserves the place of a new instance in its namespace until put, or says that
// there is none; mu is held.
func (r *Registry) join(rec *record) error {
	ns := (*r.namespaces.Load())[rec.namespace]
	if rec.joining || ns == nil || ns.quota == 0 {
		return nil
	}
	n := ns.joining
	for _, s := range ns.services {
		n += len(s.members)
	}
	if n >= ns.quota {
		return errs.New(errs.ResourceExhausted,
			"quota of namespace %s: %d instances are registered or about to be, and %d may; stop some, or raise it: telford limits set --instances N --namespace %s",
			rec.namespace, n, ns.quota, rec.namespace).Unstarted().After(quotaRetry).
			With(errs.MetaReason, errs.ReasonLimit).With("limit", "quota of namespace "+rec.namespace+", instances").
			With("running", strconv.Itoa(n)).With("queued", "0").With("namespace", rec.namespace)
	}
	ns.joining++
	rec.joining = true
	return nil
}

// quotaRetry is when an instance that found no place should look again.
const quotaRetry = 5 * time.Second

// unjoin gives back what join has reserved for an instance that was not registered.
func (r *Registry) unjoin(rec *record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if rec.joining {
		rec.joining = false
		r.namespace(rec.namespace).joining--
	}
}
