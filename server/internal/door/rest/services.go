package restdoor

import (
	"time"

	"telford.dev/telford/registry/rest"
	"telford.dev/telford/server/internal/restreg"
)

// tokenAnswer is a heartbeat token as it is answered.
type tokenAnswer struct {
	Token string `json:"token"`
}

// serviceAnswer is a service as it is answered, its fields in the order of the wire.
type serviceAnswer struct {
	ID       string            `json:"id"`
	Tags     []string          `json:"tags"`
	Metadata map[string]string `json:"metadata"`
	Timeout  int64             `json:"heartbeat_timeout"` // seconds
	LastSeen *int64            `json:"last_seen"`         // milliseconds
}

func shown(s *restreg.Service) serviceAnswer {
	a := serviceAnswer{ID: s.ID, Tags: s.Tags, Metadata: s.Metadata, Timeout: int64(s.Timeout / time.Second)}
	if !s.LastSeen.IsZero() {
		ms := s.LastSeen.UnixMilli()
		a.LastSeen = &ms
	}
	return a
}

func (d *Door) listServices(q *request) *rest.Fault {
	limit, f := q.limit()
	if f != nil {
		return f
	}
	marker, f := q.marker()
	if f != nil {
		return f
	}
	tag, given, several := q.one("tag")
	if several {
		return invalidParameter("tag", notAString)
	}
	if given {
		if bad := badID(tag); bad != "" {
			return invalidParameter("tag", bad)
		}
	}
	from := ""
	if marker != nil {
		from = *marker
	}
	list, next, err := d.cfg.Services.List(q.http.Context(), q.namespace, tag, from, limit)
	if err != nil {
		return d.failed(q, err)
	}
	values := make([]serviceAnswer, len(list))
	for i := range list {
		values[i] = shown(&list[i])
	}
	return q.answer(200, page(q, values, limit, marker, next))
}

func (d *Door) createService(q *request) *rest.Fault {
	s, f := newService(q.object)
	if f != nil {
		return f
	}
	token, err := d.cfg.Services.Create(q.http.Context(), q.by, s)
	if err != nil {
		return d.failed(q, err)
	}
	q.w.Header().Set("Location", q.location("services", s.ID))
	return q.answer(201, tokenAnswer{token.String()})
}

func (d *Door) getService(q *request, id string) *rest.Fault {
	if bad := badID(id); bad != "" {
		return invalidParameter(parameterServiceID, bad)
	}
	s, err := d.cfg.Services.Get(q.http.Context(), q.namespace, id)
	if err != nil {
		return d.failed(q, err)
	}
	return q.answer(200, shown(&s))
}

func (d *Door) updateService(q *request, id string) *rest.Fault {
	if bad := badID(id); bad != "" {
		return invalidParameter(parameterServiceID, bad)
	}
	c, f := serviceChange(q.object, id)
	if f != nil {
		return f
	}
	if err := d.cfg.Services.Update(q.http.Context(), q.by, id, c); err != nil {
		return d.failed(q, err)
	}
	return q.nothing(q.location("services", id))
}

func (d *Door) deleteService(q *request, id string) *rest.Fault {
	if bad := badID(id); bad != "" {
		return invalidParameter(parameterServiceID, bad)
	}
	if err := d.cfg.Services.Delete(q.http.Context(), q.by, id); err != nil {
		return d.failed(q, err)
	}
	return q.nothing("")
}

// heartbeat does not judge the id in the path, it only looks for it.
func (d *Door) heartbeat(q *request, id string) *rest.Fault {
	const key = "token"
	v, given := q.object[key]
	if !given {
		return invalidKey(key, "Missing required key (token)")
	}
	text, ok := v.(string)
	if !ok {
		return invalidKey(key, notAString)
	}
	token, err := restreg.ParseUUID(text)
	if err != nil {
		return invalidKey(key, err.Error())
	}
	next, err := d.cfg.Services.Beat(q.http.Context(), q.by, id, token)
	if err != nil {
		return d.failed(q, err)
	}
	q.w.Header().Set("Connection", "keep-alive")
	return q.answer(200, tokenAnswer{next.String()})
}
