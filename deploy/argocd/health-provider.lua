-- What Argo CD shows for an OpenAIProvider. It runs with the table and base libraries alone: no string or os functions.
--   Progressing  not checked yet in its present form, or the server is away: it goes on by itself
--   Healthy      the server takes the key
--   Degraded     a person must act
local function health(status, message)
  return { status = status, message = message }
end

local meta = obj.metadata or {}
if meta.deletionTimestamp ~= nil then
  return health("Progressing", "Being deleted")
end

local status = obj.status or {}
if meta.generation ~= nil and status.observedGeneration ~= meta.generation then
  return health("Progressing", "Waiting for the operator to see the resource as it is now")
end

local is = {}
local message
for _, condition in ipairs(status.conditions or {}) do
  is[condition.type] = condition.status
  if condition.type == "Ready" then
    message = condition.message
  end
end
if message == nil or message == "" then
  message = "Waiting for the operator"
end

if is.Ready == nil then
  return health("Progressing", message)
end
if is.Stalled == "True" then
  return health("Degraded", message)
end
if is.Ready == "True" then
  return health("Healthy", message)
end
return health("Progressing", message)
