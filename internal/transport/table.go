package transport

import "time"

// Table answers what the rules say about a method. It does not change once compiled and
// is safe for concurrent use; the nil Table says nothing.
type Table struct {
	byDefault said
	services  map[string]*service
}

type service struct {
	said
	methods map[string]said // full names, and bare ones as they stand in rules
}

// said is what is laid down at one level.
type said struct {
	mode, fallback string
	timeout        time.Duration
}

// Compile returns the table of rules. Of two rules about the same thing the later one
// holds, field by field; words that this version does not know say nothing.
func Compile(rules []Rule) *Table {
	if len(rules) == 0 {
		return nil
	}
	t := &Table{services: make(map[string]*service)}
	for i := range rules {
		r := &rules[i]
		if r.Service == "" {
			if r.Method == "" {
				t.byDefault.say(r)
			}
			continue
		}
		s := t.services[r.Service]
		if s == nil {
			s = &service{methods: make(map[string]said)}
			t.services[r.Service] = s
		}
		if r.Method == "" {
			s.say(r)
			continue
		}
		m := s.methods[r.Method]
		m.say(r)
		s.methods[r.Method] = m
	}
	return t
}

// Lookup returns what holds for a method of a service: for each field the rule of the
// method, else that of the service, else that of the namespace. A rule for the full name
// goes before one for its last segment. Empty and zero: nothing is said.
func (t *Table) Lookup(serviceName, method string) (mode, fallback string, timeout time.Duration) {
	if t == nil {
		return "", "", 0
	}
	var out said
	if s := t.services[serviceName]; s != nil {
		out = s.methods[method]
		if bare := lastSegment(method); bare != method {
			out.add(s.methods[bare])
		}
		out.add(s.said)
	}
	out.add(t.byDefault)
	if out.fallback == out.mode {
		// A fallback from further out that names the way of the mode itself.
		out.fallback = ""
	}
	return out.mode, out.fallback, out.timeout
}

// say puts what r says over what was said before.
func (s *said) say(r *Rule) {
	if validMode(r.Mode) {
		s.mode = r.Mode
	}
	if validFallback(r.Fallback) {
		s.fallback = r.Fallback
	}
	if r.Timeout > 0 {
		s.timeout = r.Timeout
	}
}

// add fills what is not said yet from a level further out.
func (s *said) add(outer said) {
	if s.mode == "" {
		s.mode = outer.mode
	}
	if s.fallback == "" {
		s.fallback = outer.fallback
	}
	if s.timeout == 0 {
		s.timeout = outer.timeout
	}
}
