// Describes a model in words, from its card.

const MAX_CLASSES = 20; // maximum number of classes that are listed

export function modelText(card, fileBytes) {
  const [channels, height, width] = card.image_shape;
  const names = card.conditional ? card.dataset.class_names : [];
  const more = names.length > MAX_CLASSES ? ` and ${(names.length - MAX_CLASSES).toLocaleString("en")} more` : "";
  const classes = names.length ? ` of the classes ${names.slice(0, MAX_CLASSES).join(" ")}${more}` : "";
  const size = fileBytes ? `, ${megabytes(fileBytes)}` : "";
  const kind = channels === 3 ? "colour images" : "images";
  return `A neural network that generates ${kind} of ${width} × ${height} pixels${classes}. It was trained on ${card.dataset.name}. One ONNX file${size}.`;
}

export function qualityText(quality) {
  const parts = [];
  if (quality?.fid !== undefined) parts.push(`FID ${quality.fid.toPrecision(3)}`);
  if (quality?.fid_ratio !== undefined) parts.push(`${quality.fid_ratio.toFixed(1)} times the value of real images`);
  if (quality?.label_agreement !== undefined) {
    parts.push(`${(100 * quality.label_agreement).toFixed(1)} % of the images are recognized as their label`);
  }
  return parts.length ? `Quality, measured on ${quality.images.toLocaleString("en")} images: ${parts.join(", ")}.` : "Its quality was not measured.";
}

function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(bytes < 1e5 ? 2 : 1)} MB`;
}
