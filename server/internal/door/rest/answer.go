package restdoor

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/registry/rest"
	"telford.dev/telford/server/internal/restreg"
)

// answer sends a body as JSON, whole and with its length.
func (q *request) answer(status int, v any) *rest.Fault {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "    ")
	if err := e.Encode(v); err != nil {
		return internal()
	}
	body := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	h := q.w.Header()
	h.Set("Content-Type", "application/json; charset=UTF-8")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	q.w.WriteHeader(status)
	if q.http.Method != http.MethodHead {
		_, _ = q.w.Write(body) // the client is gone
	}
	return nil
}

// nothing answers without a body. location is told unless it is "".
func (q *request) nothing(location string) *rest.Fault {
	if location != "" {
		q.w.Header().Set("Location", location)
	}
	q.w.WriteHeader(http.StatusNoContent)
	return nil
}

// location is the address of an object of the account.
func (q *request) location(kind, id string) string {
	return q.base + "/v1.0/" + q.tenant + "/" + kind + "/" + id
}

// faultAnswer is a fault as it is answered, its fields in the order of the wire.
type faultAnswer struct {
	Type    rest.FaultType `json:"type"`
	Code    int            `json:"code"`
	Message string         `json:"message"`
	Details any            `json:"details"`
	Txn     string         `json:"txnId"`
}

// fault answers with what is wrong.
func (q *request) fault(f *rest.Fault) {
	told := faultAnswer{Type: f.Type, Code: f.Code, Message: f.Message, Details: f.Details, Txn: q.txn}
	if f.RequestedPath != "" {
		told.Details = map[string]string{"requested_path": f.RequestedPath}
	}
	_ = q.answer(f.Code, &told) // a fault is always JSON
}

// badRequest is a fault with one text for everything.
func badRequest(text string) *rest.Fault { return rest.NewFault(rest.FaultBadRequest, text, text) }

// invalidParameter is the fault of a parameter of the path or the query.
func invalidParameter(name, rule string) *rest.Fault {
	return rest.NewFault(rest.FaultBadRequest, "Invalid value for '"+name+"' query string parameter", rule)
}

// invalidKey is the fault of a key of the body.
func invalidKey(name, rule string) *rest.Fault {
	return rest.NewFault(rest.FaultBadRequest, "Validation error for key '"+name+"'", rule)
}

func missing(object, key string) *rest.Fault {
	return rest.NewFault(rest.FaultNotFound, "object does not exist", `Object "`+object+`" with key "`+key+`" does not exist`)
}

func internal() *rest.Fault {
	return rest.NewFault(rest.FaultInternal, "Internal Error", "Internal Error")
}

// limitReached is the fault of an object for which there is no place.
func limitReached(resource, most string) *rest.Fault {
	return rest.NewFault(rest.FaultLimitReached, "Resource limit has been reached",
		"Limit for resource "+resource+" has been reached. Maximum allowed objects: "+most)
}

// failed is the fault for an error of a domain. What has no fault of its own goes to the
// log only.
func (d *Door) failed(q *request, err error) *rest.Fault {
	e := errs.From(err)
	switch {
	case e.Code == errs.NotFound && e.Meta[restreg.MetaObject] != "":
		return missing(e.Meta[restreg.MetaObject], e.Meta[restreg.MetaKey])
	case e.Code == errs.AlreadyExists && e.Meta[restreg.MetaKey] != "":
		text := "Service with id " + e.Meta[restreg.MetaKey] + " already exists."
		return rest.NewFault(rest.FaultServiceExists, text, text)
	case e.Code == errs.ResourceExhausted && e.Meta[restreg.MetaMost] != "":
		return limitReached("service", e.Meta[restreg.MetaMost])
	case e.Code == errs.PermissionDenied:
		return rest.NewFault(rest.FaultForbidden, "forbidden", e.Message)
	}
	if q.http.Context().Err() == nil {
		d.log.Error("a request of the REST registry failed", "transaction", q.txn, "namespace", q.namespace, "method", q.method, "error", err)
	}
	return internal()
}
