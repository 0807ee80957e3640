package restdoor

import (
	"strconv"
	"sync"
	"time"

	"telford.dev/telford/registry/rest"
)

// The one rule of rates: so many GETs of any path in a time.
const (
	ratePath   = "/.*"
	rateLimit  = 500_000
	rateWindow = 24 * time.Hour
	rateSlots  = 24
	rateSlot   = rateWindow / rateSlots
)

// The resources that have a limit beside services. Sessions are of an older generation of
// the API and only reported.
const (
	configurationLimit = 1000
	sessionLimit       = 100
)

// rates counts the requests of each namespace, in slots of an hour.
type rates struct {
	mu         sync.Mutex
	namespaces map[string]*rateCount
}

type rateCount struct {
	slot  int64 // the number of the last slot
	slots [rateSlots]int
	used  int // in all slots
}

func (r *rates) init() { r.namespaces = make(map[string]*rateCount) }

// count counts a request unless the limit is reached, and returns how many there are.
func (r *rates) count(namespace string, now time.Time, add bool) (used int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.namespaces[namespace]
	if c == nil {
		c = &rateCount{}
		r.namespaces[namespace] = c
	}
	slot := now.UnixNano() / int64(rateSlot)
	for n := min(slot-c.slot, rateSlots); n > 0; n-- {
		i := (slot - n + 1) % rateSlots
		c.used -= c.slots[i]
		c.slots[i] = 0
	}
	c.slot = max(c.slot, slot)
	if !add {
		return c.used, true
	}
	if c.used >= rateLimit {
		return c.used, false
	}
	c.used++
	c.slots[c.slot%rateSlots]++
	return c.used, true
}

// rate counts a request to which the rule applies, and refuses it beyond the limit.
func (d *Door) rate(q *request) *rest.Fault {
	if q.method != "GET" {
		return nil
	}
	now := d.clock.Now()
	used, ok := d.rates.count(q.namespace, now, true)
	const seconds = int64(rateWindow / time.Second)
	h := q.w.Header()
	h.Set("X-Ratelimit-Path-Regex", ratePath)
	h.Set("X-Ratelimit-Limit", strconv.Itoa(rateLimit))
	h.Set("X-Ratelimit-Used", strconv.Itoa(used))
	h.Set("X-Ratelimit-Window", strconv.FormatInt(seconds, 10)+" seconds")
	h.Set("Reply-After", strconv.FormatInt(now.Unix()+seconds, 10))
	if ok {
		return nil
	}
	return rest.NewFault(rest.FaultRateLimit, "Rate limit has been reached.",
		"Limit of "+strconv.Itoa(rateLimit)+" requests in "+strconv.FormatInt(seconds, 10)+` seconds for path "`+ratePath+`" has been reached`)
}

// limits answers with what the account may have and do.
func (d *Door) limits(q *request) *rest.Fault {
	used, _ := d.rates.count(q.namespace, d.clock.Now(), false)
	return q.answer(200, rest.Limits{
		Resource: map[string]int{
			"service": d.cfg.Services.ServiceLimit(q.namespace), "configuration_value": configurationLimit, "session": sessionLimit,
		},
		Rate: map[string]rest.RateLimit{ratePath: {Limit: rateLimit, Used: used, Window: "24.0 hours"}},
	})
}

func formatAccount(n int64) string { return strconv.FormatInt(n, 10) }
