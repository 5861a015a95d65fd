-- Argo CD's health of an AssetForwarder, from its conditions: https://argo-cd.readthedocs.io/en/stable/operator-manual/health/
local health = {status = "Progressing", message = "The operator has not reconciled it yet"}
if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return health
end
local conditions = {}
for _, condition in ipairs(obj.status.conditions or {}) do
  conditions[condition.type] = condition
end
local ready = conditions["Ready"]
if ready == nil then
  return health
end
health.message = ready.reason .. ": " .. ready.message
if conditions["Stalled"] ~= nil and conditions["Stalled"].status == "True" then
  health.status = "Degraded"
elseif ready.status == "True" and obj.spec.suspend then
  health.status = "Suspended"
elseif ready.status == "True" then
  health.status = "Healthy"
end
return health
