package runtime

import (
	"sync"

	"telford.dev/telford/internal/limit"
)

// applyLimits has the router and the registry keep to the limits that operators have laid
// down, now and whenever they change, and the sessions hear of instances that come and
// go.
func (r *Runtime) applyLimits() {
	b := &r.built
	var mu sync.Mutex // so that of two changes the later one stays
	apply := func(namespace string) {
		mu.Lock()
		defer mu.Unlock()
		stored := b.rules.Limits(namespace)
		list := make([]limit.Rule, 0, len(stored))
		instances := 0
		for i := range stored {
			list = append(list, stored[i].Rule)
			if stored[i].Rule.Quota() {
				instances = stored[i].Rule.Instances
			}
		}
		b.router.SetLimits(namespace, list)
		b.registry.SetQuota(namespace, instances)
	}
	b.rules.OnChange(apply)
	for _, namespace := range b.rules.Namespaces() {
		apply(namespace)
	}
	b.registry.OnService(b.sessions.Counted)
}
