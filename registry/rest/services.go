package rest

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strconv"

	"telford.dev/telford/internal/errs"
)

// ServiceQuery chooses services. Its zero value is the first page of all.
type ServiceQuery struct {
	// Tag keeps the services that have exactly this tag.
	Tag string
	// Marker is the id at which the page begins, itself included; it need not exist.
	Marker string
	// Limit is the size of a page: 1 to 1000, 0 for the server's default of 100.
	Limit int
}

func (q ServiceQuery) values() (url.Values, error) {
	v, err := pageValues(q.Marker, q.Limit)
	if q.Tag != "" {
		v.Set("tag", q.Tag)
	}
	return v, err
}

// pageValues are the parameters of every list.
func pageValues(marker string, limit int) (url.Values, error) {
	v := url.Values{}
	if limit < 0 || limit > MaxLimit {
		return v, errs.New(errs.InvalidArgument, "limit %d is outside 1 to %d", limit, MaxLimit)
	}
	if limit > 0 {
		v.Set("limit", strconv.Itoa(limit))
	}
	if marker != "" {
		v.Set("marker", marker)
	}
	return v, nil
}

// ListServices returns one page of services, sorted by id.
func (c *Client) ListServices(ctx context.Context, q ServiceQuery) (Page[Service], error) {
	return list[Service](ctx, c, "list services", "/services", q.values)
}

// EachService iterates over all services that q chooses, from its marker on, a page of
// its limit at a time. The first error ends the iteration.
func (c *Client) EachService(ctx context.Context, q ServiceQuery) iter.Seq2[Service, error] {
	return each(q.Marker, func(s Service) string { return s.ID }, func(marker string) (Page[Service], error) {
		q.Marker = marker
		return c.ListServices(ctx, q)
	})
}

// GetService returns the service with an id, or ErrNotFound.
func (c *Client) GetService(ctx context.Context, id string) (Service, error) {
	p, err := servicePath("get service", id)
	if err != nil {
		return Service{}, err
	}
	var s Service
	err = c.do(ctx, request{op: "get service " + id, method: http.MethodGet, path: p}, &s)
	return s, err
}

// CreateService registers a service and returns the token of its first heartbeat, which
// is due within the service's HeartbeatTimeout. ErrServiceExists: the id is taken by a
// service that lives; ErrLimitReached: the account has as many as it may.
func (c *Client) CreateService(ctx context.Context, s Service) (string, error) {
	if s.ID == "" {
		return "", errs.New(errs.InvalidArgument, "create service: the id is empty")
	}
	if err := checkTimeout(s.HeartbeatTimeout); err != nil {
		return "", errs.New(errs.InvalidArgument, "create service %s: %w", s.ID, err)
	}
	return c.token(ctx, request{op: "create service " + s.ID, method: http.MethodPost, path: "/services", body: newService(s)})
}

// createdService is the body of a creation: what the server sets is not in it.
type createdService struct {
	ID               string            `json:"id"`
	HeartbeatTimeout int64             `json:"heartbeat_timeout"`
	Tags             []string          `json:"tags,omitempty"`
	Metadata         map[string]string `json:"metadata,omitempty"`
}

func newService(s Service) createdService {
	return createdService{ID: s.ID, HeartbeatTimeout: wholeSeconds(s.HeartbeatTimeout), Tags: s.Tags, Metadata: s.Metadata}
}

// UpdateService changes a service in part. ErrNotFound: there is none with this id.
func (c *Client) UpdateService(ctx context.Context, id string, u ServiceUpdate) error {
	p, err := servicePath("update service", id)
	if err != nil {
		return err
	}
	if u.HeartbeatTimeout != 0 {
		if err := checkTimeout(u.HeartbeatTimeout); err != nil {
			return errs.New(errs.InvalidArgument, "update service %s: %w", id, err)
		}
	}
	return c.do(ctx, request{op: "update service " + id, method: http.MethodPut, path: p, body: u}, nil)
}

// RemoveService deregisters a service. ErrNotFound: there is none with this id.
func (c *Client) RemoveService(ctx context.Context, id string) error {
	p, err := servicePath("remove service", id)
	if err != nil {
		return err
	}
	return c.do(ctx, request{op: "remove service " + id, method: http.MethodDelete, path: p}, nil)
}

// Heartbeat says that a service is alive. The token is used up; the one returned is that
// of the next heartbeat. ErrNotFound: the service is gone, or the token is not its
// current one. A Heartbeater does this at the right times and survives both.
func (c *Client) Heartbeat(ctx context.Context, id, token string) (string, error) {
	p, err := servicePath("heartbeat", id)
	if err != nil {
		return "", err
	}
	body := struct {
		Token string `json:"token"`
	}{token}
	return c.token(ctx, request{op: "heartbeat of service " + id, method: http.MethodPost, path: p + "/heartbeat", body: body})
}

// token sends a request that is answered with the token of a heartbeat.
func (c *Client) token(ctx context.Context, r request) (string, error) {
	var answer struct {
		Token string `json:"token"`
	}
	if err := c.do(ctx, r, &answer); err != nil {
		return "", err
	}
	if answer.Token == "" {
		return "", errs.New(errs.Internal, "%s: the answer has no token", r.op)
	}
	return answer.Token, nil
}

func servicePath(op, id string) (string, error) {
	if id == "" || id == "." || id == ".." {
		return "", errs.New(errs.InvalidArgument, "%s: %q is not the id of a service", op, id)
	}
	return "/services/" + url.PathEscape(id), nil
}
