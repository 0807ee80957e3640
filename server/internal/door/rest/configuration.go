package restdoor

import (
	"context"
	"strconv"
	"strings"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/registry/rest"
	"telford.dev/telford/server/internal/config"
)

// Values are the configuration of all namespaces; *config.Values is one.
type Values interface {
	Get(ctx context.Context, namespace, id string) (config.Value, error)
	List(ctx context.Context, q config.Query) (config.Page, error)
	Set(ctx context.Context, namespace, id string, in config.Input, cond config.Cond, author string) (config.Value, bool, error)
	Remove(ctx context.Context, namespace, id string, cond config.Cond, author string) (config.Value, error)
}

const (
	minValueID, maxValueID = 3, 500
	maxValue               = 1024
	keyValue               = "value"
	objectValue            = "ConfigurationValue"
)

// valueAnswer is a value as it is answered.
type valueAnswer struct {
	ID    string `json:"id"`
	Value string `json:"value"`
}

// routeConfiguration takes all that follows as one id, its slashes included. An id that
// ends in one is a namespace to who reads.
func (d *Door) routeConfiguration(q *request, path string) (action, *rest.Fault) {
	id, f := decode(path)
	if f != nil {
		return nil, f
	}
	var run func(*request, string) *rest.Fault
	switch {
	case q.method == "GET" && (id == "" || strings.HasSuffix(id, "/")):
		run = d.listValues
	case q.method == "GET":
		run = d.getValue
	case q.method == "PUT" && id != "":
		run = d.setValue
	case q.method == "DELETE" && id != "":
		run = d.removeValue
	default:
		return nil, q.unknownPath()
	}
	return func(q *request) *rest.Fault { return run(q, id) }, nil
}

// badValueID says what is wrong with the id of a value, "" if nothing is.
func badValueID(id string) string {
	if bad := inRange(id, minValueID, maxValueID); bad != "" {
		return bad
	}
	if config.CheckID(id) != nil {
		return invalidCharacters
	}
	return ""
}

func (d *Door) listValues(q *request, namespace string) *rest.Fault {
	limit, f := q.limit()
	if f != nil {
		return f
	}
	marker, f := q.marker()
	if f != nil {
		return f
	}
	query := config.Query{Namespace: q.namespace, Limit: limit}
	if namespace != "" {
		query.Prefix = "/" + strings.Trim(namespace, "/")
	}
	if marker != nil {
		query.Marker = *marker
	}
	p, err := d.cfg.Values.List(q.http.Context(), query)
	if errs.CodeOf(err) == errs.InvalidArgument {
		p, err = config.Page{}, nil // nothing can be below a namespace that is none
	}
	if err != nil {
		return d.failed(q, err)
	}
	values := make([]valueAnswer, len(p.Values))
	for i := range p.Values {
		values[i] = valueAnswer{p.Values[i].ID, p.Values[i].Value}
	}
	return q.answer(200, page(q, values, limit, marker, p.Next))
}

func (d *Door) getValue(q *request, id string) *rest.Fault {
	if bad := badValueID(id); bad != "" {
		return invalidParameter(parameterValueID, bad)
	}
	if _, f := q.limit(); f != nil {
		return f
	}
	if _, f := q.marker(); f != nil {
		return f
	}
	v, err := d.cfg.Values.Get(q.http.Context(), q.namespace, id)
	if err != nil {
		return d.valueFailed(q, id, err)
	}
	return q.answer(200, valueAnswer{v.ID, v.Value})
}

func (d *Door) setValue(q *request, id string) *rest.Fault {
	if bad := badValueID(id); bad != "" {
		return invalidParameter(parameterValueID, bad)
	}
	text, f := newValue(q.object)
	if f != nil {
		return f
	}
	ctx := q.http.Context()
	was, err := d.cfg.Values.Get(ctx, q.namespace, id)
	switch {
	case err == nil && was.Value == text:
		return q.nothing(q.location("configuration", id))
	case errs.CodeOf(err) == errs.NotFound:
		// One at a time, so that together they do not pass the limit.
		d.newValues.Lock()
		defer d.newValues.Unlock()
		p, err := d.cfg.Values.List(ctx, config.Query{Namespace: q.namespace, Limit: 1})
		if err != nil {
			return d.failed(q, err)
		}
		if p.Count >= configurationLimit {
			return limitReached("configuration_value", strconv.Itoa(configurationLimit))
		}
	case err != nil:
		return d.failed(q, err)
	}
	if _, _, err := d.cfg.Values.Set(ctx, q.namespace, id, config.Input{Value: text}, config.Cond{}, q.by.KeyID); err != nil {
		return d.valueFailed(q, id, err)
	}
	return q.nothing(q.location("configuration", id))
}

// newValue reads the body of a value. An id in it is judged and means nothing.
func newValue(body map[string]any) (string, *rest.Fault) {
	if v, given := body[keyID]; given {
		id, ok := v.(string)
		bad := notAString
		if ok {
			bad = badValueID(id)
		}
		if bad != "" {
			return "", invalidKey(keyID, bad)
		}
	}
	v, given := body[keyValue]
	text, ok := v.(string)
	switch {
	case !given:
		return "", invalidKey(keyValue, "Missing required key (value)")
	case !ok:
		return "", invalidKey(keyValue, notAString)
	}
	if bad := inRange(text, 1, maxValue); bad != "" {
		return "", invalidKey(keyValue, bad)
	}
	return text, nil
}

func (d *Door) removeValue(q *request, id string) *rest.Fault {
	if bad := badValueID(id); bad != "" {
		return invalidParameter(parameterValueID, bad)
	}
	if _, err := d.cfg.Values.Remove(q.http.Context(), q.namespace, id, config.Cond{}, q.by.KeyID); err != nil {
		return d.valueFailed(q, id, err)
	}
	return q.nothing("")
}

// valueFailed is failed for one value.
func (d *Door) valueFailed(q *request, id string, err error) *rest.Fault {
	switch e := errs.From(err); {
	case e.Code == errs.NotFound:
		return missing(objectValue, id)
	case e.Code == errs.InvalidArgument:
		return invalidKey(keyValue, e.Message)
	case e.Code == errs.ResourceExhausted && e.Meta[errs.MetaReason] == config.ReasonQuota:
		return limitReached("configuration_value", strconv.Itoa(configurationLimit))
	}
	return d.failed(q, err)
}
