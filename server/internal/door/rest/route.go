package restdoor

import (
	"net/url"
	"strings"
	"unicode/utf8"

	"telford.dev/telford/registry/rest"
)

// action answers a request that was routed.
type action func(q *request) *rest.Fault

// route finds what answers a request. The path is taken as it was sent: nothing is cleaned
// or merged, letters of the routes fold, one slash may follow.
func (d *Door) route(q *request) (action, *rest.Fault) {
	path, _ := cutFold(q.path, "/v1.0")
	path = strings.TrimPrefix(path, "/")
	if q.http.Header.Get("X-Tenant-Id") == "" || !collection(path) {
		_, path, _ = strings.Cut(path, "/") // the tenant
	}
	name, rest, _ := strings.Cut(path, "/")
	switch {
	case equalFold(name, "services"):
		return d.routeServices(q, rest)
	case equalFold(name, "configuration") && d.cfg.Values != nil:
		return d.routeConfiguration(q, rest)
	case rest != "" || q.method != "GET":
	case equalFold(name, "limits"):
		return d.limits, nil
	case equalFold(name, "events") && d.cfg.Feed != nil:
		return d.listEvents, nil
	}
	return nil, q.unknownPath()
}

// collection reports whether a path begins with a route and not with a tenant.
func collection(path string) bool {
	name, _, _ := strings.Cut(path, "/")
	return equalFold(name, "limits") || equalFold(name, "services") || equalFold(name, "events") || equalFold(name, "configuration")
}

func (d *Door) routeServices(q *request, path string) (action, *rest.Fault) {
	if path == "" {
		switch q.method {
		case "GET":
			return d.listServices, nil
		case "POST":
			return d.createService, nil
		}
		return nil, q.unknownPath()
	}
	raw, more, _ := strings.Cut(path, "/")
	id, f := decode(raw)
	if f != nil {
		return nil, f
	}
	var run func(*request, string) *rest.Fault
	verb := strings.TrimSuffix(more, "/")
	switch {
	case raw == "":
	case more == "" && q.method == "GET":
		run = d.getService
	case more == "" && q.method == "PUT":
		run = d.updateService
	case more == "" && q.method == "DELETE":
		run = d.deleteService
	case equalFold(verb, "heartbeat") && q.method == "POST":
		run = d.heartbeat
	}
	if run == nil {
		return nil, q.unknownPath()
	}
	return func(q *request) *rest.Fault { return run(q, id) }, nil
}

// decode undoes the percent-encoding of a parameter in the path, once.
func decode(raw string) (string, *rest.Fault) {
	s, err := url.PathUnescape(raw)
	if err != nil || !utf8.ValidString(s) {
		return "", badRequest("URI malformed")
	}
	return s, nil
}

// unknownPath is the fault of a route that is none.
func (q *request) unknownPath() *rest.Fault {
	f := rest.NewFault(rest.FaultNotFound, "The page cannot be found.", "")
	f.RequestedPath = q.path
	return f
}
