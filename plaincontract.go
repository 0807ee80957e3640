package telford

import (
	"slices"
	"strings"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/contract"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/match"
	"telford.dev/telford/internal/message"
)

// Methods that stream from the client are plain gRPC and not in the registry. Which
// instances have the caller's types is told by the other methods of their gRPC service,
// and where it has none, by the instance itself.

// plainContract puts the contract of a plain gRPC call into it and returns the gRPC
// service whose types its instances must have, "" when any will do. The error says that
// nobody has them.
func (s *Service) plainContract(service, method string, o *outbound) (grpcService string, err error) {
	switch o.set.contractRule {
	case anyContract:
		return "", nil
	case givenContract:
		o.Target.Contract = o.set.contract
		return "", nil
	}
	if o.Target.Contract = contractOf(method); o.Target.Contract == "" {
		return "", nil
	}
	grpcService, _ = splitMethod(method)
	list := s.view.Snapshot().Services[service]
	speakers := make([]match.Speaker, 0, len(list))
	for _, i := range list {
		if !usable(i) {
			continue
		}
		if s.speaks(i, grpcService) {
			return grpcService, nil
		}
		// Its contract of this method is not known, only that it is another.
		speakers = append(speakers, match.Speaker{ID: i.ID, Version: i.Declaration.Version})
	}
	if len(speakers) == 0 {
		return grpcService, nil // the connection says who is missing
	}
	return "", match.Refusal(service, method, o.Target.Contract, speakers)
}

// speaks reports whether an instance has the types of a gRPC service as they are linked
// into this program, as far as it has declared them.
func (s *Service) speaks(i *catalog.Instance, grpcService string) bool {
	if grpcService == "" {
		return true
	}
	return !slices.ContainsFunc(i.Declaration.Methods, func(m catalog.Method) bool {
		if m.Contract == "" || !strings.HasPrefix(m.Name, grpcService+"/") {
			return false
		}
		own := s.linkedContract(m.Name)
		return contract.Type(own) == contract.Type(m.Contract) && own != m.Contract
	})
}

// linkedContract is contractOf, kept from call to call.
func (s *Service) linkedContract(method string) string {
	if c, ok := s.linked.Load(method); ok {
		return c.(string)
	}
	c, _ := s.linked.LoadOrStore(method, contractOf(method))
	return c.(string)
}

// otherContract refuses a plain gRPC call whose contract is not that of the method here.
func (s *Service) otherContract(call *message.Call, full string) *errs.Error {
	want := call.Target.Contract
	if want == "" {
		return nil
	}
	own := s.linkedContract(strings.TrimPrefix(full, "/"))
	if own == want || contract.Type(own) != contract.Type(want) {
		return nil
	}
	return match.Refusal(s.name, strings.TrimPrefix(full, "/"), want, []match.Speaker{{ID: s.Identity().Instance, Version: s.opt.version, Contract: own}})
}
